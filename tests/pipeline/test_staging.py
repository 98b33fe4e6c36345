"""Executors have local folders, and the store gets complete artifacts. `file://` replaces an object store."""

import os
import pathlib

import pytest
from tfx import v1 as tfx

from components import stored_folder
from components.errors import SegpipeError
from pipeline.running.nodes import PipelineRun
from pipeline.storage.store import Store

_Examples = tfx.types.standard_artifacts.Examples
_Model = tfx.types.standard_artifacts.Model


@tfx.dsl.components.component
def Writer(folder: tfx.dsl.components.OutputArtifact[_Examples], content: tfx.dsl.components.Parameter[str]) -> None:
    """Writes two files, into an empty local folder."""
    assert not os.listdir(folder.uri)
    folder.set_string_custom_property("place", folder.uri + "/a")
    for name in ("a", "Split-train/b"):
        path = pathlib.Path(folder.uri, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


@tfx.dsl.components.component
def Reader(
    folder: tfx.dsl.components.InputArtifact[_Examples],
    copy: tfx.dsl.components.OutputArtifact[_Model],
    needs: tfx.dsl.components.Parameter[str],
) -> None:
    """Copies a file of its input; fails after it has written something, until another file is there."""
    pathlib.Path(copy.uri, "copy").write_text(pathlib.Path(folder.uri, "Split-train", "b").read_text())
    if not os.path.exists(needs):
        raise RuntimeError("the file is not there yet")


class Cluster:
    """Runs the pipeline with its root on a store, each run on another disk."""

    def __init__(self, folder: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
        self.store = folder / "store"
        self.needs = folder / "go"
        self._metadata = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(folder / "metadata.sqlite"))
        self._folder, self._patch, self._disks = folder, patch, 0

    def change_disk(self) -> None:
        self._disks += 1
        disk = self._folder / f"disk-{self._disks}"
        disk.mkdir()
        self._patch.setattr("tempfile.tempdir", str(disk))

    def run(self, run_id: str) -> list[str]:
        self.change_disk()
        writer = Writer(content="text")
        reader = Reader(folder=writer.outputs["folder"], needs=str(self.needs))
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="toy",
            pipeline_root=f"{self.store.as_uri()}/artifacts",
            components=[writer, reader],
            enable_cache=True,
            metadata_connection_config=self._metadata,
        )
        run = PipelineRun(pipeline, run_id)
        return [run.launch(node).state for node in run.node_ids]

    def artifact(self, run_id: str, node_id: str):
        (execution,) = [each for each in Store(self._metadata).executions(run_id) if each.node_id == node_id]
        ((artifact,),) = execution.outputs.values()
        return artifact


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    cluster = Cluster(tmp_path, monkeypatch)
    cluster.needs.touch()
    return cluster


def test_outputs_are_uploaded_and_recorded_with_their_address(cluster):
    assert cluster.run("first") == ["ran", "ran"]

    artifact = cluster.artifact("first", "Writer")
    assert artifact.uri.startswith(f"{cluster.store.as_uri()}/artifacts/Writer/folder/")
    assert artifact.properties["place"] == f"{artifact.uri}/a"
    assert set(stored_folder.read_manifest(artifact.uri).files) == {"a", "Split-train/b"}
    cluster.change_disk()
    copy = stored_folder.fetch(cluster.artifact("first", "Reader").uri)
    assert pathlib.Path(copy, "copy").read_text() == "text"


def test_the_same_run_again_comes_from_the_cache_and_fetches_nothing(cluster, monkeypatch):
    cluster.run("first")
    monkeypatch.setattr(stored_folder, "fetch", lambda folder: pytest.fail(f"fetched {folder}"))

    assert cluster.run("second") == ["cached", "cached"]


@pytest.mark.parametrize("kept", [True, False])
def test_an_artifact_without_its_manifest_is_made_again(cluster, kept):
    cluster.run("first")
    manifest = pathlib.Path(cluster.artifact("first", "Writer").uri.removeprefix("file://") + ".json")
    if not kept:
        manifest.unlink()

    assert cluster.run("second")[0] == ("cached" if kept else "ran")


def test_an_executor_that_fails_publishes_nothing_and_its_retry_succeeds(cluster):
    cluster.needs.unlink()
    with pytest.raises(RuntimeError, match="not there yet"):
        cluster.run("first")
    assert not list(cluster.store.glob("artifacts/Reader/copy/*"))

    cluster.needs.touch()
    assert cluster.run("first")[1] == "ran"


def test_partial_outputs_of_a_killed_task_are_not_used(cluster, monkeypatch):
    write_manifest = stored_folder.write_manifest

    def kill_before_the_manifest(folder, manifest):
        if folder.startswith("file://") and "/Reader/" in folder:
            raise KeyboardInterrupt
        write_manifest(folder, manifest)

    monkeypatch.setattr(stored_folder, "write_manifest", kill_before_the_manifest)
    with pytest.raises(KeyboardInterrupt):
        cluster.run("first")
    (left,) = cluster.store.glob("artifacts/Reader/copy/*/copy")
    (left.parent / "stale").touch()
    monkeypatch.setattr(stored_folder, "write_manifest", write_manifest)

    assert cluster.run("first")[1] == "ran"
    assert set(stored_folder.read_manifest(cluster.artifact("first", "Reader").uri).files) == {"copy"}
    assert cluster.artifact("first", "Reader").uri == f"{left.parent.as_uri()}-2"


def test_a_copy_that_is_damaged_or_differs_is_fetched_again_or_refused(cluster):
    cluster.run("first")
    uri = cluster.artifact("first", "Writer").uri
    local = pathlib.Path(stored_folder.fetch(uri))
    (local / "a").unlink()

    assert (pathlib.Path(stored_folder.fetch(uri)) / "a").read_text() == "text"
    pathlib.Path(uri.removeprefix("file://"), "a").write_text("tex")
    cluster.change_disk()
    with pytest.raises(SegpipeError, match=f"{uri}/a: found 3 bytes .* expected 4 bytes"):
        stored_folder.fetch(uri)
