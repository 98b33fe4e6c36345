"""Runs of the whole pipeline with root, data and push destination on a real S3 server.

The first run's Trainer is killed while it publishes its outputs, and the run goes on with an empty disk, as on another
node. Then the run is repeated, and repeated again without the manifest of one artifact.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import object_store_server
import pytest

from components import files, object_store, stored_folder
from components.dataset import synthetic
from components.pusher.sync import sync
from components.pusher.versions import find_versions

pytestmark = pytest.mark.slow

# Launches nodes of a run, as the tasks of a cluster do: the bucket, the metadata store, the run, and the nodes or none
# for all. Prints each node's state.
_TASKS = """
import sys
from components.tensorflow_start import prepare
prepare()
from pipeline.configuration.data import describe, with_gate_split
from pipeline.wiring.create_pipeline import create_pipeline
from pipeline.kubeflow.node import workdir_of
from pipeline.kubeflow.parameters import configure, defaults
from pipeline.running.nodes import PipelineRun

bucket, metadata, run_id, *nodes = sys.argv[1:]
settings = {
    "kubeflow": {"root": f"{bucket}/work", "metadata": {"path": metadata}},
    "serving_dir": f"{bucket}/serving",
    "model": {"base_filters": 4},
    "gate": {"min_class_iou": {}},
}
values = defaults(f"{bucket}/data", "unet", "smoke", None, None)
values |= {"size": "32x32", "epochs": 1, "min_mean_iou": 0.0, "max_class_drop": 1.0, "max_mean_drop": 1.0}
config = configure(values, [("test", settings)])
description = describe(config.data)
config = with_gate_split(config, description)
run = PipelineRun(create_pipeline(config, workdir_of(config), description), run_id)
for node in nodes or run.node_ids:
    print("state", node, run.launch(node).state, flush=True)
"""


class Cluster:
    """Runs nodes in processes of their own, each with an empty disk, against a bucket behind a proxy."""

    def __init__(self, folder: Path, proxy: object_store_server.Proxy, bucket: str) -> None:
        self.metadata = folder / "metadata.sqlite"
        self.bucket = bucket
        self.proxy = proxy
        self._folder = folder
        self._starts = 0

    def start(self, run_id: str, *nodes: str) -> subprocess.Popen:
        """Starts nodes of a run, all of them if none is named."""
        self._starts += 1
        disk = self._folder / f"disk-{self._starts}"
        disk.mkdir()
        environment = os.environ | object_store_server.KEYS
        environment |= {"AWS_ENDPOINT_URL_S3": self.proxy.endpoint, "TMPDIR": str(disk)}
        command = [sys.executable, "-c", _TASKS, self.bucket, str(self.metadata), run_id, *nodes]
        with open(self._folder / f"log-{self._starts}.txt", "w") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)

    def run(self, run_id: str, *nodes: str) -> dict[str, str]:
        """Runs nodes of a run and returns the state of each."""
        with self.start(run_id, *nodes) as process:
            output, _ = process.communicate()
        log = (self._folder / f"log-{self._starts}.txt").read_text()
        assert process.returncode == 0, log[-5000:]
        return dict(line.split()[1:] for line in output.splitlines() if line.startswith("state "))


@pytest.fixture(scope="module")
def cluster(s3_server, tmp_path_factory):
    """A bucket with data, and `s3://` leading to it in this module's tests too."""
    folder = tmp_path_factory.mktemp("cluster")
    bucket = f"run-{os.getpid()}"
    object_store_server.make_bucket(s3_server, bucket)
    proxy = object_store_server.Proxy(s3_server)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**object_store_server.KEYS, "AWS_ENDPOINT_URL_S3": proxy.endpoint}.items():
            patch.setenv(name, value)
        patch.setattr("tempfile.tempdir", str(folder))
        object_store._open.cache_clear()
        synthetic.make(str(folder / "data"), pairs={"train": 8, "val": 4}, size=(32, 32))
        stored_folder.copy_files(str(folder / "data"), f"s3://{bucket}/data")
        yield Cluster(folder, proxy, f"s3://{bucket}")
        proxy.close()
    object_store._open.cache_clear()


@pytest.fixture(scope="module")
def story(cluster):
    """Runs the story; returns the states of each run's nodes, and the reads of the first one's second half."""
    killed = {}

    def kill_while_trainer_publishes(method: str, path: str) -> int | None:
        if method == "PUT" and "/artifacts/Trainer/" in path and "process" in killed:
            killed["puts"] = killed.get("puts", 0) + 1
            if killed["puts"] == 3:
                killed["process"].kill()
                return 503
        return None

    cluster.proxy.rule = kill_while_trainer_publishes
    killed["process"] = cluster.start("first")
    with killed["process"] as process:
        output, _ = process.communicate()
    left = list(files.list_files(f"{cluster.bucket}/work/artifacts/Trainer"))
    cluster.proxy.rule = lambda method, path: None
    cluster.proxy.requests.clear()
    first = cluster.run("first")
    reads = [path for method, path in cluster.proxy.requests if method == "GET" and "?" not in path]
    cluster.proxy.requests.clear()
    again = cluster.run("again")
    read_again = [path for method, path in cluster.proxy.requests if method == "GET" and "?" not in path]
    return {
        "killed": (process.returncode, output, left),
        "first": first,
        "reads": reads,
        "again": again,
        "read_again": read_again,
    }


def _artifacts(cluster) -> list[str]:
    from pipeline.storage.metadata import connection_config
    from pipeline.storage.settings import MetadataSettings
    from pipeline.storage.store import Store

    store = Store(connection_config(MetadataSettings(path=str(cluster.metadata)), str(cluster.metadata)))
    return [
        artifact
        for run_id in ("first", "again")
        for execution in store.executions(run_id)
        for group in execution.outputs.values()
        for artifact in group
    ]


def test_outputs_of_a_task_that_was_killed_while_it_uploads_are_not_used(story):
    code, output, left = story["killed"]

    assert code == -9
    assert "state Trainer" not in output
    assert left
    assert not [path for path in left if path.count("/") == 1]  # no manifest, as model/7.json


def test_the_run_continues_after_the_kill_and_uploads_all(story, cluster):
    assert story["first"]["Trainer"] == "ran"
    assert story["first"]["Pusher"] == "ran"
    for artifact in _artifacts(cluster):
        assert artifact.uri.startswith(f"{cluster.bucket}/work/artifacts/")
        folder = Path(stored_folder.fetch(artifact.uri))
        manifest = stored_folder.read_manifest(artifact.uri)
        assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(manifest.files)
        assert not [value for value in artifact.properties.values() if "/disk-" in str(value)]


def test_the_pushed_model_is_complete(story, cluster, tmp_path):
    versions = find_versions(f"{cluster.bucket}/serving/segpipe")
    assert len(versions) == 1

    assert sync(f"{cluster.bucket}/serving/segpipe", str(tmp_path)).copied == tuple(versions)
    about = json.loads((tmp_path / str(*versions) / "assets" / "segpipe.json").read_text())
    assert "mean_iou" in about["metrics"]


def test_nothing_is_fetched_twice_on_one_disk(story):
    of_artifacts = collections.Counter(path for path in story["reads"] if "/artifacts/" in path)
    contents = {path: count for path, count in of_artifacts.items() if not path.endswith(".json")}

    assert contents  # what the killed task's process had on its disk
    assert set(contents.values()) == {1}


def test_the_same_run_again_comes_from_the_cache_and_reads_no_artifact(story):
    states = {node: state for node, state in story["again"].items() if node != "BaselineResolver"}

    assert set(states.values()) == {"cached"}
    assert not [path for path in story["read_again"] if path.endswith((".gz", ".pb", ".index")) or "/variables" in path]


def test_an_artifact_without_its_manifest_is_made_again(story, cluster):
    (graph,) = {each.uri for each in _artifacts(cluster) if "/Transform/transform_graph/" in each.uri}
    files.remove(f"{graph}.json")

    nodes = ["ImageMaskExampleGen", "QuarantineGate", "ImportSchemaGen", "StatisticsGen", "ExampleValidator"]
    states = cluster.run("third", *nodes, "AnomalyGate", "Transform")

    assert states["Transform"] == "ran"
    assert {state for node, state in states.items() if node != "Transform"} == {"cached"}
