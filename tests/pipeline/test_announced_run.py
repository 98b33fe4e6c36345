"""A run is logged to a real MLflow server, and the webhook gets the event that its model was not blessed."""

import mlflow_server
import pytest
from mlflow import MlflowClient
from webhook_receiver import receiving

from pipeline.cli.run import build_config
from pipeline.running.run import run_pipeline

pytestmark = pytest.mark.slow


def test_a_run_that_is_not_blessed_is_logged_and_sent_also_from_the_cache(street_scenes, tmp_path, monkeypatch):
    (tmp_path / "mlflow").mkdir()
    with mlflow_server.running(tmp_path / "mlflow") as server, receiving() as receiver:
        monkeypatch.setenv("SEGPIPE_WEBHOOK_URL", receiver.address)
        config = build_config(
            street_scenes,
            "unet",
            "smoke",
            None,
            None,
            None,
            [f"tracking.mlflow_uri={server}", "tracking.experiment=streets", "gate.min_mean_iou=0.999"],
        )

        assert [run_pipeline(config, str(tmp_path / "work")) for _ in range(2)] == [False, False]

        client = MlflowClient(tracking_uri=server, registry_uri=server)
        experiment = client.get_experiment_by_name("streets").experiment_id
        runs = client.search_runs([experiment], order_by=["start_time ASC"])
        names = sorted(folder.name for folder in (tmp_path / "work" / "runs").iterdir())
        assert [run.info.run_name for run in runs] == names == [body["run_id"] for body in receiver.bodies]
        assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
        for run, body in zip(runs, receiver.bodies, strict=True):
            assert run.data.tags["segpipe.verdict"] == "not blessed"
            assert len(run.data.tags["segpipe.data_hash"]) > 16
            assert client.get_metric_history(run.info.run_id, "training/loss")
            assert body["event"] == "not_blessed"
            assert "mean_iou is " in body["reason"]
            assert body["scores"]["mean_iou"] == pytest.approx(run.data.metrics["mean_iou"])
            assert body["links"]["report"].endswith(f"{body['run_id']}/report.html")
        (version,) = client.search_model_versions(f"name = '{config.served_name}'")
        assert version.tags["segpipe.verdict"] == "not blessed"
        assert client.get_registered_model(config.served_name).aliases == {"candidate": version.version}
