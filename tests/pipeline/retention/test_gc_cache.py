"""TFX uses the metadata store and the folders after `segpipe gc`."""

import os

import pytest
from tfx import v1 as tfx
from toy_copies import Copy, Write

from pipeline.configuration.loading import load_config
from pipeline.retention.collect import collect
from pipeline.running.nodes import run_nodes
from pipeline.storage.workdir import Workdir


@pytest.fixture
def workdir(tmp_path):
    workdir = Workdir(str(tmp_path / "work"))
    workdir.create()
    return workdir


@pytest.fixture
def run(workdir):
    """Runs two components, the second of which reads what the first wrote; returns their states."""

    def _run(run_id, content):
        writer = Write(content=content)
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="toy",
            pipeline_root=workdir.artifacts,
            components=[writer, Copy(text=writer.outputs["text"])],
            enable_cache=True,
            metadata_connection_config=workdir.connection,
        )
        os.makedirs(workdir.run(run_id))
        return [result.state for result in run_nodes(pipeline, run_id)]

    return _run


def _collect(workdir):
    return collect(workdir, load_config([("test", {"retention": {"keep_runs": 1}})]))


def test_removed_outputs_are_made_again_and_others_come_from_the_cache(run, workdir):
    run("first", "a")
    run("second", "b")

    assert set(_collect(workdir).removed.values()) == {"first"}

    assert run("third", "b") == ["cached", "cached"]
    assert run("fourth", "a") == ["ran", "ran"]


def test_no_file_of_a_removed_run_is_left(run, workdir):
    run("first", "a")
    run("second", "b")

    _collect(workdir)

    # TFX names folders after executions: the first run's are 1 and 2.
    left = [os.path.join(folder, name) for folder, _, names in os.walk(workdir.artifacts) for name in names]
    assert {part for path in left for part in os.path.relpath(path, workdir.artifacts).split("/")} >= {"3", "4"}
    assert not {part for path in left for part in os.path.relpath(path, workdir.artifacts).split("/")} & {"1", "2"}


def test_outputs_that_a_later_run_took_from_the_cache_stay(run, workdir):
    run("first", "a")
    assert run("second", "a") == ["cached", "cached"]

    assert set(_collect(workdir).removed.values()) == {"first"}

    assert run("third", "a") == ["cached", "cached"]
