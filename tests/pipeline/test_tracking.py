"""Runs are logged once to a real MLflow server on SQLite. A failing server does not fail a run."""

import dataclasses
import math
import os

import mlflow_server
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.class_map import ClassMap
from components.errors import UsageError
from components.metrics.threshold_check import ThresholdCheck
from components.report.data import Lineage, ReportData, Verdict
from pipeline.configuration.loading import field_names, load_config
from pipeline.running import tracking
from pipeline.running.tracking import FinishedRun, log_finished, log_run

_CLASSES = ("road", "traffic light: red/amber", "void")
_COLORS = ((0, 0, 0), (1, 1, 1), (2, 2, 2))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server.running(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture
def client(server):
    return MlflowClient(tracking_uri=server, registry_uri=server)


@pytest.fixture
def finished(tmp_path):
    """Returns a function from a run's name, its verdict and its weights to a finished run."""

    def make(run_id="run-1", blessed=True, weights=b"seed 7", place=None):
        model = tmp_path / "model" / weights.decode().replace(" ", "-")
        (model / "assets").mkdir(parents=True, exist_ok=True)
        (model / "assets" / "segpipe.json").write_text('{"model": "unet"}')
        (model / "saved_model.pb").write_bytes(b"graph")
        (model / "fingerprint.pb").write_bytes(weights)
        (tmp_path / "report.html").write_text("<h1>größer</h1>")
        gates = (ThresholdCheck("mean_iou", "value", 0.4, 0.3, blessed),)
        report = ReportData(
            model="unet",
            class_map=ClassMap(_CLASSES, _COLORS, 2),
            gate_split="val",
            verdict=Verdict(blessed, place or f"/srv/unet/{run_id}" if blessed else None, gates),
            scores={"mean_iou": 0.3, f"class_iou/{_CLASSES[1]}": 0.25, "class_iou/void": math.nan, "mean_dice": None},
            baseline_scores={"mean_iou": 0.2},
            selection_scores={"mean_iou": 0.35},
            history=tuple(
                {"epoch": epoch, "loss": loss, "val_mean_iou": None} for epoch, loss in ((1, 2.0), (2, 9.0), (2, 1.0))
            ),
            lineage=Lineage(data_hash="d4", code_hash="c0"),
        )
        return FinishedRun(run_id, 1732183200.5, 1732183260.0, report, str(tmp_path / "report.html"), str(model))

    return make


def _config(server, experiment, **settings):
    tracked = {"mlflow_uri": server, "experiment": experiment, **settings.pop("tracking", {})}
    return load_config([("test", {"tracking": tracked, "serving_name": experiment, **settings})])


def _runs(client, experiment):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def _downloaded(client, run, path, folder):
    with open(client.download_artifacts(run.info.run_id, path, str(folder)), encoding="utf-8") as file:
        return file.read()


def test_a_run_is_logged_completely(server, client, finished, tmp_path):
    config = _config(server, "whole", training={"epochs": 3})

    address = log_run(config, finished())

    (run,) = _runs(client, "whole")
    assert address == f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (1732183200500, 1732183260000)
    assert set(run.data.params) == {name for name, _, _ in field_names()}
    assert run.data.params["training.epochs"] == "3"
    assert run.data.params["size"] == "[224, 224]"
    assert run.data.params["data.train_split"] == "train"
    tags = {name: value for name, value in run.data.tags.items() if name.startswith("segpipe.")}
    assert tags == {
        "segpipe.run_id": "run-1",
        "segpipe.started": "1732183200500",
        "segpipe.verdict": "blessed",
        "segpipe.data_hash": "d4",
        "segpipe.code_hash": "c0",
        "segpipe.pushed": "/srv/unet/run-1",
        "segpipe.reason": "",
        "segpipe.model_version": "whole/1",
    }
    assert run.data.metrics == {
        "mean_iou": 0.3,
        "class_iou/traffic light_ red/amber": 0.25,
        "selection/mean_iou": 0.35,
        "baseline/mean_iou": 0.2,
        "training/loss": 1.0,
    }
    curve = client.get_metric_history(run.info.run_id, "training/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 2.0), (2, 1.0)]
    assert _downloaded(client, run, "report.html", tmp_path) == "<h1>größer</h1>"
    assert "epochs: 3" in _downloaded(client, run, "config.yaml", tmp_path)


def test_a_run_that_is_logged_again_exists_once(server, client, finished):
    config = _config(server, "again")

    assert log_run(config, finished()) == log_run(config, finished())

    (run,) = _runs(client, "again")
    assert len(client.get_metric_history(run.info.run_id, "mean_iou")) == 1
    assert len(client.search_model_versions("name = 'again'")) == 1


def test_an_incompletely_logged_run_is_completed(server, client, finished, monkeypatch):
    config = _config(server, "half")
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "create_model_version", _refuse)
        with pytest.raises(MlflowException):
            log_run(config, finished())
    assert [run.info.status for run in _runs(client, "half")] == ["RUNNING"]

    log_run(config, finished())

    (run,) = _runs(client, "half")
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "training/loss")) == 2


def _refuse(*_, **__):
    raise MlflowException("no space left\nand much more")


def test_runs_of_the_same_name_with_other_start_times_are_separate(server, client, finished):
    config = _config(server, "two")

    log_run(config, finished())
    log_run(config, dataclasses.replace(finished(), started=1732183299.0))

    assert len(_runs(client, "two")) == 2


def test_the_registry_has_each_model_once_with_its_verdict_and_aliases(server, client, finished):
    config = _config(server, "registry")

    log_run(config, finished("run-1"))
    log_run(config, finished("run-2", blessed=False, weights=b"seed 8"))
    rejected = client.get_model_version_by_alias("registry", "candidate")
    assert rejected.tags["segpipe.verdict"] == "not blessed"
    assert rejected.tags["segpipe.reason"] == "mean_iou is 0.300, 0.100 below its minimum of 0.400"
    assert client.get_model_version_by_alias("registry", "stable").tags["segpipe.run_id"] == "run-1"

    # All from the cache: the model of the first run again.
    log_run(config, finished("run-3"))

    versions = {version.version: version for version in client.search_model_versions("name = 'registry'")}
    assert len(versions) == 2
    for alias in ("candidate", "stable"):
        assert client.get_model_version_by_alias("registry", alias).tags["segpipe.run_id"] == "run-1"


@pytest.mark.parametrize("log_model", [False, True])
def test_the_source_of_a_local_model_is_in_the_run(server, client, finished, log_model):
    name = f"local-{log_model}"

    log_run(_config(server, name, tracking={"log_model": log_model}), finished())

    (run,) = _runs(client, name)
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert version.source == f"runs:/{run.info.run_id}/model"
    assert version.tags["segpipe.model"] == "/srv/unet/run-1"
    found = {item.path for item in client.list_artifacts(run.info.run_id, "model")}
    whole = {"model/assets", "model/fingerprint.pb", "model/saved_model.pb"}
    assert found == (whole if log_model else {"model/segpipe.json"})


def test_the_source_of_a_model_on_an_object_store_is_the_pushed_folder(server, client, finished):
    log_run(_config(server, "bucket"), finished(place="gs://bucket/serving/unet/3"))

    (version,) = client.search_model_versions("name = 'bucket'")
    assert version.source == "gs://bucket/serving/unet/3"


def test_the_server_itself_refuses_a_local_folder_as_source(server, client, finished):
    """If this fails, `_source` can name the pushed folder, without a copy of segpipe.json."""
    log_run(_config(server, "refused"), finished())
    (run,) = _runs(client, "refused")

    with pytest.raises(MlflowException, match="Invalid model version source"):
        client.create_model_version("refused", "/srv/unet/3", run.info.run_id)


def test_a_value_that_is_too_long_is_cut(server, client, finished):
    log_run(_config(server, "long", kubeflow={"env": {"LONG": "x" * 7000}}), finished())

    (run,) = _runs(client, "long")
    assert run.data.params["kubeflow.env"] == '{"LONG": "' + "x" * 5990


@pytest.mark.parametrize("number", [1200])
def test_more_metrics_than_a_request_takes(server, client, finished, number):
    run = finished()
    history = tuple({"epoch": epoch, "loss": 1.0 / epoch} for epoch in range(1, number + 1))
    run = dataclasses.replace(run, report=dataclasses.replace(run.report, history=history))

    log_run(_config(server, "many"), run)

    (logged,) = _runs(client, "many")
    assert len(client.get_metric_history(logged.info.run_id, "training/loss")) == number


def test_a_server_that_is_down_is_a_warning(finished, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = []

    log_finished(_config("http://127.0.0.1:1", "down"), finished(), said.append)

    (warning,) = said
    assert warning.startswith("warning: tracking.mlflow_uri: the run was not logged to http://127.0.0.1:1: ")
    assert "Check that the server runs" in warning


def test_a_refusal_of_the_server_is_a_warning_with_its_message(server, finished, monkeypatch):
    monkeypatch.setattr(MlflowClient, "create_model_version", _refuse)
    said = []

    log_finished(_config(server, "refusing"), finished(), said.append)

    assert "MlflowException: no space left\nCheck" in said[0]


def test_without_the_client_the_extra_is_named(finished, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    said = []

    log_finished(_config("http://127.0.0.1:1", "none"), finished(), said.append)

    assert "pip install 'segpipe[mlflow]'" in said[0]


def test_the_client_gives_up_soon_unless_the_environment_says_otherwise(finished, monkeypatch):
    for name in tracking._CLIENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", _refuse)

    log_finished(_config("http://127.0.0.1:1", "soon"), finished(), lambda text: None)

    assert {name: os.environ[name] for name in tracking._CLIENT} == {
        **tracking._CLIENT,
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "7",
    }


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("mlflow.example.com", "expected the address of an MLflow server"),
        ("sqlite:///mlflow.db", "expected the address of an MLflow server"),
        ("http://[", "expected the address of an MLflow server"),
        ("https://me:secret@mlflow.example.com", "without user and password.*MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_an_address_that_is_no_server_is_refused(address, message):
    with pytest.raises(UsageError, match=f"tracking.mlflow_uri: .*{message}"):
        load_config([("test", {"tracking": {"mlflow_uri": address}})])
