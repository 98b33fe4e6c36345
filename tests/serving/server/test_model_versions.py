"""Versions and configurations change while requests run: no request fails or gets the wrong version."""

import concurrent.futures
import os
import shutil
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2
from tensorflow_serving.config import model_server_config_pb2
from toy_models import (
    ONE,
    Channel,
    connected,
    predict_request,
    push,
    run_inside,
    serving,
    stage,
    state_of,
    wait_until,
    write_warmup,
)

from components.errors import UsageError
from serving.server import registry as server_registry
from serving.server.errors import ServingError
from serving.server.registry import list_versions
from serving.server.servable import AVAILABLE, END, UNLOADING
from serving.server.session import SavedModelSession

_X = {"x": np.ones((1, 2), np.float32)}


def _status(connection, name="toy", version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return connection.models.GetModelStatus(request).model_version_status


def _config(*models):
    """A configuration of (name, base path, further text) models."""
    entries = " ".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {more} }}'
        for name, path, more in models
    )
    return text_format.Parse(f"model_config_list {{ {entries} }}", model_server_config_pb2.ModelServerConfig())


def _reload(connection, config):
    request = model_management_pb2.ReloadConfigRequest(config=config)
    return connection.models.HandleReloadConfigRequest(request, timeout=60)


def _specific(*versions, **labels):
    policy = " ".join(f"versions: {version}" for version in versions)
    pairs = " ".join(f'version_labels {{ key: "{key}" value: {value} }}' for key, value in labels.items())
    return f"model_version_policy {{ specific {{ {policy} }} }} {pairs}"


def _answered_by(connection, **spec):
    answer = connection.predict(_X, **spec)
    version = answer.model_spec.version.value
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), _X["x"] * version)
    return version


def _break(version):
    """Truncates a version's weights, as a killed copy does."""
    (data,) = (version / "variables").glob("variables.data-*")
    os.truncate(data, 1)


class _Callers:
    """Threads that send requests without a pause and record every answer."""

    def __init__(self, connection, count, ask):
        self.answers, self.failures = [], []
        self._connection, self._ask, self._stop = connection, ask, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._stop.is_set():
            try:
                self.answers.append(self._ask(self._connection))
            except Exception as error:
                self.failures.append(error)


def test_new_version_is_swapped_in_while_requests_run(toys, tmp_path):
    push(toys, tmp_path, 1)
    with serving(model_base_path=tmp_path) as server:
        connection = Channel(server.port)
        with _Callers(connection, 4, _answered_by) as callers:
            for number in (2, 3):
                push(toys, tmp_path, number)
                wait_until(server, lambda registry, old=number - 1: state_of(registry, old) == END)
            last = _answered_by(connection)
        states = {status.version: status.state for status in _status(connection)}

    assert not callers.failures
    assert last == 3
    assert set(callers.answers) == {1, 2, 3}
    assert states == {1: END, 2: END, 3: AVAILABLE}


def test_version_is_unloaded_only_after_its_last_request(toys, tmp_path):
    push(toys, tmp_path, 1)
    with serving(model_base_path=tmp_path) as server:
        connection = Channel(server.port)
        held = connection.prediction.Predict.future(predict_request(ONE, signature="gate"))
        run_inside(server, "await_entry")
        push(toys, tmp_path, 2)
        wait_until(server, lambda registry: state_of(registry, 1) == UNLOADING)
        assert _answered_by(connection) == 2

        run_inside(server, "open_gate")
        answer = held.result(timeout=30)
        wait_until(server, lambda registry: state_of(registry, 1) == END)

    assert answer.model_spec.version.value == 1
    assert list(answer.outputs["number"].float_val) == [1]


def test_broken_version_is_reported_and_the_old_one_serves(toys, tmp_path):
    push(toys, tmp_path, 1)
    with serving(model_base_path=tmp_path) as server:
        connection = Channel(server.port)
        staging = stage(toys, tmp_path, 2)
        _break(staging)
        os.rename(staging, tmp_path / "2")
        wait_until(server, lambda registry: state_of(registry, 2) == END)
        (status,) = _status(connection, version=2)

        assert status.status.error_code != 0
        assert status.status.error_message
        assert _answered_by(connection) == 1


def test_server_with_a_broken_newest_version_serves_none_and_says_what_to_do(toys, tmp_path, caplog):
    # tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc at 9d981c5, AspireLatestVersions: the
    # newest folders are aspired to, even if they cannot be loaded.
    for number in (1, 2):
        push(toys, tmp_path, number)
    _break(tmp_path / "2")
    with serving(model_base_path=tmp_path) as server:
        connection = Channel(server.port)
        assert [(status.version, status.state) for status in _status(connection)] == [(2, END)]
        assert connection.refusal(_X)[0] == grpc.StatusCode.NOT_FOUND

        shutil.rmtree(tmp_path / "2")
        wait_until(server, lambda registry: state_of(registry, 1) == AVAILABLE)
        assert _answered_by(connection) == 1

    warnings = "\n".join(record.getMessage() for record in caplog.records if record.name == "segpipe.serving")
    assert f"could not load toy version 2 from {tmp_path}/2, not trying again unless its folder is removed" in warnings
    assert f"no version of toy is available; delete {tmp_path}/2 to serve the newest other version" in warnings


def test_half_written_version_fails_to_load_and_is_tried_again(toys, tmp_path):
    push(toys, tmp_path, 1)
    with serving(model_base_path=tmp_path, max_num_load_retries=100, load_retry_interval_micros=50_000) as server:
        connection = Channel(server.port)
        shutil.copytree(toys / "2", tmp_path / "2", ignore=shutil.ignore_patterns("saved_model.pb"))
        wait_until(
            server, lambda registry: state_of(registry, 2) is not None and registry.models["toy"].versions[2].error
        )
        assert _answered_by(connection) == 1

        shutil.copy(toys / "2" / "saved_model.pb", tmp_path / "2")
        wait_until(server, lambda registry: state_of(registry, 1) == END)
        assert _answered_by(connection) == 2


def test_every_child_whose_name_is_a_number_is_a_version(tmp_path):
    largest = 2**63 - 1
    for name in ("1", "01", "+2", "-3", " 4 ", str(largest), str(largest + 1), "1_0", "5a", "", "٣", "v6", ".7", "8.0"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "9").write_text("a file")

    found = list_versions(str(tmp_path))

    names = {1: "1", 2: "+2", -3: "-3", 4: " 4 ", largest: str(largest), 9: "9"}
    assert found == {number: str(tmp_path / name) for number, name in names.items()}


def test_a_base_path_that_cannot_be_listed_changes_nothing(toys, tmp_path):
    push(toys, tmp_path / "toy", 1)
    with serving(model_base_path=tmp_path / "toy") as server:
        connection = Channel(server.port)
        (tmp_path / "toy").rename(tmp_path / "away")
        server.core.reload(_config(("toy", tmp_path / "toy", ""), ("other", tmp_path / "away", "")))

        assert list_versions(str(tmp_path / "toy")) is None
        assert _answered_by(connection) == 1


def test_load_is_retried_as_configured(toys, tmp_path):
    push(toys, tmp_path, 1)
    _break(tmp_path / "1")
    with serving(model_base_path=tmp_path, max_num_load_retries=2, load_retry_interval_micros=1) as server:
        wait_until(server, lambda registry: state_of(registry, 1) == END)

        assert server.core.registry.versions("toy")[0].attempts == 3


def test_failed_version_is_retried_from_the_start_when_selected_again(toys, tmp_path, monkeypatch):
    push(toys, tmp_path, 1)
    push(toys, tmp_path, 2)
    load, memory = server_registry.load, threading.Event()

    def short_of_memory(directory, *more):
        if directory.endswith("2") and not memory.is_set():
            raise MemoryError("found too little memory")
        return load(directory, *more)

    monkeypatch.setattr(server_registry, "load", short_of_memory)
    with serving(model_base_path=tmp_path, max_num_load_retries=5, load_retry_interval_micros=60_000_000) as server:
        connection = Channel(server.port)
        both, first = (_config(("toy", tmp_path, _specific(*versions))) for versions in ((1, 2), (1,)))
        _reload(connection, both)
        wait_until(server, lambda registry: registry.models["toy"].versions[2].attempts == 1)
        _reload(connection, first)
        wait_until(server, lambda registry: state_of(registry, 2) == END)
        memory.set()

        _reload(connection, both)

        wait_until(server, lambda registry: state_of(registry, 2) == AVAILABLE)
        assert _answered_by(connection, version=2) == 2


def test_reload_that_waits_for_a_load_ends_with_the_server(toys, tmp_path, monkeypatch):
    push(toys, tmp_path, 1)
    load, began, goes_on = server_registry.load, threading.Event(), threading.Event()

    def slow(directory, *more):
        if directory.startswith(str(tmp_path / "other")):
            began.set()
            goes_on.wait(60)
        return load(directory, *more)

    monkeypatch.setattr(server_registry, "load", slow)
    for name in ("other1", "other2"):
        shutil.copytree(tmp_path / "1", tmp_path / name / "1")
    with serving(model_base_path=tmp_path, drain_seconds=0.1) as server:
        models = [("toy", tmp_path, ""), *((name, tmp_path / name, "") for name in ("other1", "other2"))]
        failures = []

        def reload():
            try:
                server.core.reload(_config(*models))
            except ServingError as error:
                failures.append(error.message)

        waiting = threading.Thread(target=reload)
        waiting.start()
        began.wait(60)
        threading.Timer(0.2, goes_on.set).start()

    waiting.join(60)
    assert "did not become available" in failures[0]


@pytest.mark.parametrize("ends_well", [True, False])
def test_repeated_reload_waits_for_the_same_load(toys, tmp_path, monkeypatch, ends_well):
    push(toys, tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / "other" / "1")
    load, began, goes_on = server_registry.load, threading.Event(), threading.Event()

    def slow(directory, *more):
        if directory.startswith(str(tmp_path / "other")):
            began.set()
            assert goes_on.wait(60)
            if not ends_well:
                raise MemoryError("found too little memory")
        return load(directory, *more)

    monkeypatch.setattr(server_registry, "load", slow)
    config = _config(("toy", tmp_path, ""), ("other", tmp_path / "other", ""))

    def reload(connection):
        try:
            _reload(connection, config)
        except grpc.RpcError as error:
            return error.details()
        return "served" if connection.predict(_X, name="other") else ""

    with connected(model_base_path=tmp_path) as connection, concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(reload, connection)
        assert began.wait(60)
        again = pool.submit(reload, connection)
        with pytest.raises(concurrent.futures.TimeoutError):
            again.result(0.5)
        goes_on.set()

        assert first.result(60) == again.result(60)
        assert ("served" if ends_well else "found too little memory") in again.result()


def test_reload_does_not_wait_for_other_loads(toys, tmp_path, monkeypatch):
    push(toys, tmp_path / "toy", 1)
    (tmp_path / "other").mkdir()
    load, began, goes_on = server_registry.load, threading.Event(), threading.Event()

    def slow(directory, *more):
        if directory.startswith(str(tmp_path / "other")):
            began.set()
            assert goes_on.wait(60)
        return load(directory, *more)

    monkeypatch.setattr(server_registry, "load", slow)
    models = [("toy", tmp_path / "toy", ""), ("other", tmp_path / "other", "")]
    with connected(model_base_path=tmp_path / "toy", model_name="toy") as connection:
        with pytest.raises(grpc.RpcError, match="did not become available"):
            _reload(connection, _config(*models))
        push(toys, tmp_path / "other", 1)
        assert began.wait(60)

        _reload(connection, _config(("toy", tmp_path / "toy", _specific(1, stable=1)), models[1]))

        assert _answered_by(connection, label="stable") == 1
        goes_on.set()


def test_reload_while_folders_are_listed_hides_no_version(toys, tmp_path, monkeypatch):
    push(toys, tmp_path, 1)
    list_versions = server_registry.list_versions
    with serving(model_base_path=tmp_path) as server:
        config = _config(("toy", tmp_path, ""))

        def slow(base_path):
            found = list_versions(base_path)
            server.core.reload(config)
            return found

        monkeypatch.setattr(server_registry, "list_versions", slow)
        push(toys, tmp_path, 2)

        wait_until(server, lambda registry: state_of(registry, 2) == AVAILABLE)
        assert _answered_by(Channel(server.port)) == 2


def test_deleted_version_is_replaced_by_the_previous_one(toys, tmp_path):
    push(toys, tmp_path, 1)
    push(toys, tmp_path, 2)
    with serving(model_base_path=tmp_path) as server:
        connection = Channel(server.port)
        assert _answered_by(connection) == 2

        shutil.rmtree(tmp_path / "2")
        wait_until(server, lambda registry: state_of(registry, 2) == END)
        assert _answered_by(connection) == 1


def test_version_that_fails_to_unload_is_reported(toys, tmp_path, monkeypatch, caplog):
    push(toys, tmp_path, 1)
    with serving(model_base_path=tmp_path) as server:
        close = SavedModelSession.close

        def fail(session):
            close(session)
            raise RuntimeError("found a session that does not close")

        monkeypatch.setattr(SavedModelSession, "close", fail)
        push(toys, tmp_path, 2)
        wait_until(server, lambda registry: state_of(registry, 1) == END)
        monkeypatch.undo()

        shutil.rmtree(tmp_path / "2")
        wait_until(server, lambda registry: state_of(registry, 1) == AVAILABLE)
        assert _answered_by(Channel(server.port)) == 1

    assert "could not free toy version 1" in caplog.messages


def test_every_thread_ends_with_the_server(toys, tmp_path):
    push(toys, tmp_path, 1)
    before = set(threading.enumerate())
    with serving(model_base_path=tmp_path, enable_batching=True, rest_api_port=0) as server:
        push(toys, tmp_path, 2)
        wait_until(server, lambda registry: state_of(registry, 1) == END)
        during = {thread.name.rpartition("_")[0] or thread.name for thread in set(threading.enumerate()) - before}

    assert {"models", "load", "unload"} <= during
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not [name for name in left if name.startswith(("model", "load", "unload"))]


def test_version_is_warmed_up_before_it_serves(toys, tmp_path):
    shutil.copytree(toys / "1", tmp_path / "1")
    write_warmup(tmp_path / "1", predict_request({"by": np.float32(1)}, signature="visit"))
    with connected(model_base_path=tmp_path, num_request_iterations_for_warmup=3) as connection:
        answer = connection.predict({"by": np.float32(0)}, signature="visit")

    assert list(answer.outputs["visits"].float_val) == [3]


def test_failing_warm_up_request_fails_the_load(toys, tmp_path):
    shutil.copytree(toys / "1", tmp_path / "1")
    write_warmup(tmp_path / "1", predict_request({"wrong": 1.0}))
    with serving(model_base_path=tmp_path) as server:
        (status,) = _status(Channel(server.port))

    assert status.state == END
    assert status.status.error_message.startswith("warm-up request failed: inputs: found wrong")


def test_policies_choose_versions(toys, tmp_path):
    for number in (1, 2, 3):
        push(toys, tmp_path, number)
    models = [
        ("latest", tmp_path, ""),
        ("two", tmp_path, "model_version_policy { latest { num_versions: 2 } }"),
        ("all", tmp_path, "model_version_policy { all {} }"),
        ("specific", tmp_path, _specific(1, 3)),
    ]
    config = tmp_path / "models.config"
    config.write_text(text_format.MessageToString(_config(*models)))
    wanted = {"latest": [3], "two": [3, 2], "all": [3, 2, 1], "specific": [3, 1]}
    with serving(model_config_file=config) as server:
        wait_until(
            server,
            lambda registry: all(
                state_of(registry, number, name) == AVAILABLE for name in wanted for number in wanted[name]
            ),
        )
        connection = Channel(server.port)
        found = {name: [status.version for status in _status(connection, name)] for name in wanted}
        answers = {name: _answered_by(connection, name=name) for name in wanted}

    assert found == wanted
    assert answers == dict.fromkeys(wanted, 3)


def test_promotion_and_rollback_by_label_never_answer_with_another_version(toys, tmp_path):
    for number in (1, 2):
        push(toys, tmp_path, number)
    stages = [{1}]  # the possible versions of "stable" over time

    def ask(connection):
        began = len(stages) - 1
        return _answered_by(connection, label="stable"), set().union(*stages[began:])

    with serving(model_base_path=tmp_path) as server:
        connection = Channel(server.port)
        _reload(connection, _config(("toy", tmp_path, _specific(1, 2))))
        wait_until(server, lambda registry: state_of(registry, 1) == AVAILABLE)
        _reload(connection, _config(("toy", tmp_path, _specific(1, 2, stable=1, canary=2))))
        with _Callers(connection, 2, ask) as callers:
            for number in (2, 1, 2):
                stages.append({1, 2})
                _reload(connection, _config(("toy", tmp_path, _specific(1, 2, stable=number))))
                stages.append({number})
                assert _answered_by(connection, label="stable") == number

    assert not callers.failures
    assert all(version in allowed for version, allowed in callers.answers)


def test_label_of_a_version_that_does_not_serve_is_refused_and_nothing_changes(toys, tmp_path):
    push(toys, tmp_path, 1)
    with connected(model_base_path=tmp_path) as connection:
        with pytest.raises(grpc.RpcError) as refusal:
            _reload(connection, _config(("toy", tmp_path, _specific(1, 9, stable=9))))

        assert refusal.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert refusal.value.details() == (
            "Request to assign label to version 9 of model toy, which is not currently available for inference"
        )
        assert _answered_by(connection) == 1


def test_new_label_may_precede_its_version_if_allowed(toys, tmp_path):
    push(toys, tmp_path, 1)
    options = {"allow_version_labels_for_unavailable_models": True}
    config = tmp_path / "models.config"
    config.write_text(text_format.MessageToString(_config(("toy", tmp_path, _specific(1, stable=1)))))
    with connected(model_config_file=config, **options) as connection:
        assert _answered_by(connection, label="stable") == 1


def test_labels_from_the_start_need_the_flag(toys, tmp_path):
    push(toys, tmp_path, 1)
    config = tmp_path / "models.config"
    models = _config(("other", tmp_path, ""), ("toy", tmp_path, _specific(1, stable=1)))
    config.write_text(text_format.MessageToString(models))
    message = f"{config}: found version_labels of model toy, .* add --allow_version_labels_for_unavailable_models"

    with pytest.raises(UsageError, match=message), serving(model_config_file=config):
        pass


def test_reload_adds_and_removes_models(toys, tmp_path):
    push(toys, tmp_path, 1)
    with serving(model_base_path=tmp_path) as server:
        connection = Channel(server.port)
        _reload(connection, _config(("other", tmp_path, "")))

        assert _answered_by(connection, name="other") == 1
        wait_until(server, lambda registry: state_of(registry, 1) == END)
        assert connection.refusal(_X)[0] == grpc.StatusCode.NOT_FOUND


def test_model_that_is_removed_and_added_while_a_request_runs_serves_after_it(toys, tmp_path):
    push(toys, tmp_path, 1)
    both = _config(("toy", tmp_path, ""), ("other", tmp_path, ""))
    with serving(model_base_path=tmp_path) as server:
        connection = Channel(server.port)
        held = connection.prediction.Predict.future(predict_request(ONE, signature="gate"))
        run_inside(server, "await_entry")
        _reload(connection, _config(("other", tmp_path, "")))
        wait_until(server, lambda registry: state_of(registry, 1) == UNLOADING)

        request = model_management_pb2.ReloadConfigRequest(config=both)
        added = connection.models.HandleReloadConfigRequest.future(request, timeout=60)
        wait_until(server, lambda registry: registry.models["toy"].wanted == {1})
        run_inside(server, "open_gate")

        assert list(held.result(timeout=30).outputs["number"].float_val) == [1]
        added.result()
        assert _answered_by(connection) == 1


@pytest.mark.parametrize("retries", [0, 5])
def test_corrected_base_path_loads_the_failed_version(toys, tmp_path, retries):
    for name in ("wrong", "right"):
        (tmp_path / name).mkdir()
        push(toys, tmp_path / name, 1)
    _break(tmp_path / "wrong" / "1")
    with serving(model_base_path=tmp_path / "wrong", max_num_load_retries=retries) as server:
        connection = Channel(server.port)
        wait_until(server, lambda registry: registry.models["toy"].versions[1].error)
        _reload(connection, _config(("toy", tmp_path / "right", "")))
        wait_until(server, lambda registry: state_of(registry, 1) == AVAILABLE)

        assert _answered_by(connection) == 1


def test_served_version_stays_if_its_folder_changes_and_a_warning_names_both(toys, tmp_path, caplog):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    push(toys, before, 1)
    shutil.copytree(toys / "2", after / "1")
    with serving(model_base_path=before) as server:
        connection = Channel(server.port)
        _reload(connection, _config(("toy", after, "")))
        wait_until(server, lambda registry: registry.models["toy"].wanted == {1})
        assert _answered_by(connection) == 1

        push(toys, after, 2)
        wait_until(server, lambda registry: state_of(registry, 1) == END)
        assert _answered_by(connection) == 2
        # A version that has ended stays in the status, although its number's folder is another now.
        push(toys, after, 3)
        wait_until(server, lambda registry: state_of(registry, 2) == END)
        assert [status.state for status in _status(connection)] == [AVAILABLE, END, END]

    ours = [record for record in caplog.records if record.name == "segpipe.serving"]
    (warning,) = [record.getMessage() for record in ours if record.levelname == "WARNING"]
    assert warning.startswith(f"toy version 1 is still served from {before}/1, not from {after}/1")


@pytest.mark.parametrize(
    ("models", "code", "text"),
    [
        (
            [("a", "/x", ""), ("a", "/y", "")],
            grpc.StatusCode.INVALID_ARGUMENT,
            "Illegal to list model a multiple times in config list",
        ),
        (
            [("a", "relative", "")],
            grpc.StatusCode.INVALID_ARGUMENT,
            "Expected model a to have an absolute path or URI; got base_path()=relative",
        ),
        ([("a", "/nowhere", "")], grpc.StatusCode.UNKNOWN, "1 model(s) did not become available: "),
    ],
)
def test_wrong_configuration_is_refused(toys, tmp_path, models, code, text):
    push(toys, tmp_path, 1)
    with connected(model_base_path=tmp_path) as connection, pytest.raises(grpc.RpcError) as refusal:
        _reload(connection, _config(*models))

    assert refusal.value.code() == code
    assert refusal.value.details().startswith(text)


def test_configuration_file_is_followed(toys, tmp_path):
    push(toys, tmp_path, 1)
    push(toys, tmp_path, 2)
    config = tmp_path / "models.config"
    config.write_text(text_format.MessageToString(_config(("toy", tmp_path, _specific(1)))))
    with serving(model_config_file=config, model_config_file_poll_wait_seconds=0.05) as server:
        connection = Channel(server.port)
        assert _answered_by(connection) == 1

        config.write_text("not a configuration")
        assert _answered_by(connection) == 1
        config.write_text(text_format.MessageToString(_config(("toy", tmp_path, _specific(2)))))
        wait_until(server, lambda registry: state_of(registry, 1) == END)
        assert _answered_by(connection) == 2


def test_configuration_file_that_names_no_models_is_a_usage_error(tmp_path):
    (tmp_path / "models.config").write_text("model_config_list { config { nonsense: 1 } }")

    with pytest.raises(UsageError, match="--model_config_file"), serving(model_config_file=tmp_path / "models.config"):
        pass


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("nobody", None, "Could not find any versions of model nobody"),
        ("toy", 9, "Could not find version 9 of model toy"),
    ],
)
def test_status_of_an_unknown_model_is_not_found(toys, tmp_path, name, version, text):
    push(toys, tmp_path, 1)
    with connected(model_base_path=tmp_path) as connection, pytest.raises(grpc.RpcError) as refusal:
        _status(connection, name, version)

    assert (refusal.value.code(), refusal.value.details()) == (grpc.StatusCode.NOT_FOUND, text)


def test_health_depends_on_the_models(toys, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    base_path = tmp_path / "toy"
    base_path.mkdir()
    push(toys, base_path, 1)
    config = tmp_path / "models.config"
    config.write_text(text_format.MessageToString(_config(("toy", base_path, ""), ("late", empty, ""))))
    with serving(model_config_file=config) as server:
        connection = Channel(server.port)
        health = health_pb2_grpc.HealthStub(connection.channel)

        def check(name=""):
            return health.Check(health_pb2.HealthCheckRequest(service=name)).status

        # A version is available a moment before the health service reports it.
        told = health.Watch(health_pb2.HealthCheckRequest(service="toy"), timeout=60)
        assert any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in told)
        before = {name: check(name) for name in ("", "toy", "late", "tensorflow.serving.PredictionService")}
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
        first = next(watch).status
        push(toys, empty, 2)
        then = next(watch).status

    yes, no = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert before == {"": no, "toy": yes, "late": no, "tensorflow.serving.PredictionService": no}
    assert (first, then) == (no, yes)
