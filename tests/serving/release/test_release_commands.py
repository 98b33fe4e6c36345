"""`segpipe release` against model servers and a cluster on real sockets."""

import errno
import json
import os
import subprocess
import sys

import pytest
from json_output import check_form
from release_commands import UNLABELLED, config_text, options_of, release
from toy_model_server import ToyModelServer

from components.errors import ReleaseError, UsageError
from serving.client.results import VersionStatus
from serving.release.servers import ModelServer


def test_no_proxy_is_used_for_local_servers(following, config_file, monkeypatch):
    for name in ("grpc_proxy", "https_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # no listener

    assert release("promote", "13", *options_of(following, config_file)).exit_code == 0


def test_a_release_with_canary_promotion_and_rollback(following, config_file):
    options = options_of(following, config_file)

    assert release("promote", "13", *options).exit_code == 0
    for server in following:
        server.on_disk.add(14)
    tried = release("canary", "14", *options)
    assert tried.exit_code == 0, tried.exception
    assert [server.labels for server in following] == [{"stable": 13, "canary": 14}] * 2
    promoted = release("promote", *options)
    assert promoted.stdout.splitlines()[0] == "fcn8: stable 14 (was 13), canary 14, previous 13"
    assert [server.versions() for server in following] == [[13, 14]] * 2
    assert release("rollback", *options).exit_code == 0

    assert [server.labels for server in following] == [{"stable": 13, "canary": 13}] * 2
    assert [server.versions() for server in following] == [[13]] * 2
    assert config_file.read_text().startswith("# Which versions are served.\n")


@pytest.mark.parametrize("allows", [False, True])
def test_a_release_needs_no_label_on_a_version_that_is_not_available(start, config_file, allows):
    # The manifests set --allow_version_labels_for_unavailable_models; other servers may not.
    server = start(ToyModelServer, {12, 13}, allows_labels_for_unavailable=allows)
    server.follow(config_file.read_text)
    options = options_of([server], config_file)

    done = [release(*words, *options).exit_code for words in (["promote", "13"], ["canary", "12"], ["promote"])]

    assert done == [0, 0, 0]
    assert server.labels == {"stable": 12, "canary": 12, "previous": 13}


def test_the_stable_version_is_always_loaded_during_a_release(following, config_file):
    options = options_of(following, config_file)
    steps = [release(*words, *options) for words in (("promote", "13"), ("canary", "12"), ("promote",))]

    assert [step.exit_code for step in steps] == [0, 0, 0]
    for server in following:
        for config in server.configs:
            (model,) = config.model_config_list.config
            served = set(model.model_version_policy.specific.versions)
            assert set(model.version_labels.values()) <= served


def test_a_canary_that_fails_to_load_is_reverted(following, config_file):
    options = options_of(following, config_file)
    release("promote", "13", *options)
    before = config_file.read_text()
    for server in following:
        server.on_disk.add(14)
        server.broken.add(14)

    refused = release("canary", "14", *options)

    assert isinstance(refused.exception, ReleaseError)
    assert "version 14 of fcn8 failed to load: Could not find variables" in str(refused.exception)
    assert config_file.read_text() == before
    assert following[0].labels == {"stable": 13, "canary": 13}


def test_a_missing_canary_fails_after_the_timeout(following, config_file):
    options = options_of(following, config_file)
    release("promote", "13", *options)
    before = config_file.read_text()

    refused = release("canary", "99", *options, "--timeout", "0")

    assert "after 0 s, version 99 of fcn8 is unknown, expected AVAILABLE" in str(refused.exception)
    assert config_file.read_text() == before


@pytest.mark.parametrize("state", ["START", "LOADING"])
def test_a_loading_version_is_promoted_once_loaded(following, config_file, monkeypatch, state):
    (version,) = following[0].versions()
    known, asked = ModelServer.versions, []
    loading = {version: VersionStatus(version, state)}
    monkeypatch.setattr(
        ModelServer, "versions", lambda server, model: known(server, model) if asked else (asked.append(0), loading)[1]
    )

    release("promote", str(version), *options_of(following, config_file))

    assert following[0].labels["stable"] == version


def test_a_version_that_keeps_loading_fails_after_the_timeout(following, config_file, monkeypatch):
    (version,) = following[0].versions()
    monkeypatch.setattr(ModelServer, "versions", lambda server, model: {version: VersionStatus(version, "LOADING")})

    refused = release("promote", str(version), *options_of(following, config_file), "--timeout", "0")

    assert f"after 0 s, version {version} of fcn8 is LOADING, expected AVAILABLE" in str(refused.exception)
    assert config_file.read_text() == UNLABELLED


def test_a_version_that_is_not_available_is_not_promoted(following, config_file):
    refused = release("promote", "11", *options_of(following, config_file))

    assert isinstance(refused.exception, ReleaseError)
    assert "version 11 of fcn8 is unknown, expected AVAILABLE" in str(refused.exception)
    assert config_file.read_text() == UNLABELLED


def test_a_file_that_changed_meanwhile_is_not_replaced(start, config_file):
    from serving.release.records import FileRecord

    record = FileRecord(str(config_file))
    config = record.read()
    config_file.write_text(UNLABELLED.replace("fcn8", "unet"))

    with pytest.raises(ReleaseError, match="changed while this command ran"):
        record.write(config)
    assert "unet" in config_file.read_text()
    assert [file.name for file in config_file.parent.iterdir()] == ["models.config"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to others")
def test_a_file_keeps_owner_and_mode(config_file):
    from serving.release.records import FileRecord

    os.chown(config_file, 12345, 54321)
    config_file.chmod(0o640)
    record = FileRecord(str(config_file))
    config = record.read()
    config.model_config_list.config[0].model_version_policy.specific.versions.append(99)

    record.write(config)

    after = config_file.stat()
    assert "99" in config_file.read_text()
    assert (after.st_uid, after.st_gid, after.st_mode & 0o777) == (12345, 54321, 0o640)


def test_a_file_that_cannot_be_replaced_is_named_and_nothing_changes(following, config_file, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("os.replace", refuse)
    refused = release("promote", "13", *options_of(following, config_file))

    assert isinstance(refused.exception, ReleaseError)
    assert f"--config-file {config_file}: Permission denied; expected a folder" in str(refused.exception)
    assert "could not be restored" not in str(refused.exception)
    assert config_file.read_text() == UNLABELLED
    assert not list(config_file.parent.glob("*.tmp"))


def test_a_dry_run_prints_the_configuration_and_changes_nothing(following, config_file):
    shown = release("promote", "13", "--dry-run", *options_of(following, config_file))

    assert 'key: "stable"\n      value: 13' in shown.stdout
    assert config_file.read_text() == UNLABELLED


def test_without_a_record_the_servers_get_the_configuration_by_rpc(start):
    server = start(ToyModelServer, {12, 13})
    server.start_with(config_text([12], {"stable": 12}))
    options = ["--server", server.address, "--model", "fcn8", "--base-path", "/models/fcn8"]

    assert release("canary", "13", *options).exit_code == 0
    assert server.labels == {"stable": 12, "canary": 13}
    assert release("canary", "--withdraw", *options).exit_code == 0

    assert server.labels == {"stable": 12, "canary": 12}
    assert server.versions() == [12]
    assert server.configs[-1].model_config_list.config[0].base_path == "/models/fcn8"


def test_servers_with_different_labels_are_listed_and_not_changed(start):
    servers = [start(ToyModelServer, {12, 13}) for _ in range(2)]
    servers[0].start_with(config_text([12], {"stable": 12}))
    servers[1].start_with(config_text([13], {"stable": 13}))
    words = [word for server in servers for word in ("--server", server.address)]

    refused = release("promote", "13", *words, "--model", "fcn8", "--base-path", "/models/fcn8")

    assert "servers with different labels" in str(refused.exception)
    assert [server.labels for server in servers] == [{"stable": 12}, {"stable": 13}]


def _pair(start, versions, labels):
    """Two servers without a record, and the options that name them."""
    servers = [start(ToyModelServer, {12, 13, 14}) for _ in range(2)]
    for server in servers:
        server.start_with(config_text(versions, labels))
    words = [word for server in servers for word in ("--server", server.address)]
    return servers, [*words, "--model", "fcn8", "--base-path", "/models/fcn8"]


def _labels_of(config):
    return dict(config.model_config_list.config[0].version_labels)


@pytest.mark.parametrize(
    ("step", "loaded", "labels"),
    [
        (("canary", "14"), [12, 13], {"stable": 13, "canary": 13, "previous": 12}),
        (("promote",), [12, 13, 14], {"stable": 13, "canary": 14, "previous": 12}),
        (("rollback",), [12, 13], {"stable": 13, "canary": 13, "previous": 12}),
    ],
)
def test_labels_that_one_server_rejects_are_restored_on_the_others(start, step, loaded, labels):
    (taker, other), options = _pair(start, loaded, labels)
    other.is_lost = lambda config: _labels_of(config) != labels

    refused = release(*step, *options)

    assert isinstance(refused.exception, ReleaseError)
    assert f"Taken by: {taker.address}. Not taken: --server {other.address}: " in str(refused.exception)
    assert str(refused.exception).endswith("The configuration and the labels are unchanged")
    assert [server.labels for server in (taker, other)] == [labels] * 2
    assert [server.versions() for server in (taker, other)] == [loaded] * 2


def test_a_failed_restore_on_one_server_is_reported_and_the_others_are_restored(start):
    labels = {"stable": 12, "canary": 12}
    (lost, other), options = _pair(start, [12], labels)
    lost.broken.add(13)
    arrives = iter([True, False])
    lost.is_lost = lambda config: not next(arrives)

    refused = release("canary", "13", *options)

    message = str(refused.exception)
    assert f"--server {lost.address}: version 13 of fcn8 failed to load" in message
    assert f"could not be restored: not every server took the configuration. Taken by: {other.address}. " in message
    assert "repeat the command with --server for the servers that are behind" in message
    assert "failed to load" in str(refused.exception.__cause__)
    assert other.versions() == [12]


def test_a_server_that_is_behind_catches_up_by_itself(start):
    (ahead, behind), options = _pair(start, [12, 13], {"stable": 12, "canary": 13})
    ahead.start_with(config_text([12, 13], {"stable": 13, "canary": 13, "previous": 12}))

    assert "Repeat the last command with --server for the servers that are behind" in str(
        release("rollback", *options).exception
    )
    alone = ["--server", behind.address, "--model", "fcn8", "--base-path", "/models/fcn8"]

    assert release("promote", *alone).exit_code == 0
    assert behind.labels == ahead.labels
    assert release("rollback", *options).exit_code == 0


def test_labels_stay_if_a_server_fails_to_unload(start):
    servers, options = _pair(start, [12, 13], {"stable": 13, "canary": 13, "previous": 12})
    servers[1].is_lost = lambda config: (
        13 not in config.model_config_list.config[0].model_version_policy.specific.versions
    )

    refused = release("rollback", *options)

    assert "every server has the labels" in str(refused.exception)
    assert [server.labels for server in servers] == [{"stable": 12, "canary": 12}] * 2


def test_a_configmap_is_patched_and_the_pods_follow_it(start, cluster):
    pod = start(ToyModelServer, {12, 13})
    pod.follow(lambda: cluster.data["models.config"])
    options = ["--server", pod.address, "--configmap", "segpipe/segpipe-models"]

    tried = release("canary", "13", *options)

    assert tried.stdout.splitlines()[0] == "fcn8: stable 12, canary 13 (was 12)"
    assert pod.labels == {"stable": 12, "canary": 13}
    assert "value: 13" in cluster.data["models.config"]


def test_a_configmap_that_changed_meanwhile_is_not_replaced(start, cluster):
    pod = start(ToyModelServer, {12, 13})
    pod.follow(lambda: cluster.data["models.config"])
    theirs = config_text([12], {"stable": 12, "shadow": 12})
    cluster.before_patch = lambda: cluster.set("models.config", theirs)

    refused = release("canary", "13", "--server", pod.address, "--configmap", "segpipe/segpipe-models")

    assert str(refused.exception).endswith("changed while this command ran; check it and run the command again")
    assert cluster.data["models.config"] == theirs


def test_a_missing_configmap_is_named(start, cluster):
    pod = start(ToyModelServer, {12})
    pod.start_with(config_text([12], {"stable": 12}))

    refused = release("rollback", "--server", pod.address, "--configmap", "segpipe/other")

    assert "--configmap segpipe/other: the cluster answered 404" in str(refused.exception)


def test_status_shows_each_server_s_versions_states_and_labels(start):
    server = start(ToyModelServer, {12, 13, 14}, broken={14})
    server.start_with(config_text([12, 13, 14], {"stable": 12, "canary": 13}))

    rows = json.loads(release("status", "--server", server.address, "--model", "fcn8", "--json").stdout)

    check_form(rows)
    assert [(row["version"], row["state"], row["labels"]) for row in rows] == [
        (12, "AVAILABLE", ["stable"]),
        (13, "AVAILABLE", ["canary"]),
        (14, "END", []),
    ]
    assert rows[2]["error"] == "Could not find variables"
    unknown = release("status", "--server", server.address, "--model", "other")
    assert "no server knows it" in str(unknown.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("promote", "--server", "127.0.0.1:1"), "found 0 of --config-file, --configmap and --base-path"),
        (("promote", "--server", "127.0.0.1:1", "--base-path", "/models/fcn8"), "expected --model as well"),
        (
            ("canary", "--server", "127.0.0.1:1", "--base-path", "/m"),
            "found neither of VERSION and --withdraw, expected one",
        ),
        (("status", "--server", "nowhere", "--model", "fcn8"), "expected HOST:PORT"),
    ],
)
def test_a_wrong_command_line_is_explained(words, message):
    refused = release(*words)

    assert isinstance(refused.exception, UsageError)
    assert message in str(refused.exception)


def test_an_unreachable_server_is_named(start, config_file):
    server = start(ToyModelServer, {12})
    server.stop()

    refused = release("promote", "12", *options_of([server], config_file))

    assert f"--server {server.address}: GetModelStatus answered UNAVAILABLE" in str(refused.exception)


def test_tensorflow_is_not_imported():
    program = (
        "import sys; from typer.testing import CliRunner; from pipeline.cli.main import app;"
        "words = ['release', 'status', '--server', 'localhost:1', '--model', 'fcn8'];"
        "print(type(CliRunner().invoke(app, words).exception).__name__, 'tensorflow' in sys.modules)"
    )

    answered = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True).stdout

    assert answered == "ReleaseError False\n"
