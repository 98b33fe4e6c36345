"""A report's lineage names the runs of its baseline and predecessor, and links their pages in one work directory."""

import dataclasses
import os

import pytest
from recorded_runs import Recorder

from components.class_map import ClassMap
from components.report.component import write
from components.report.data import Lineage, RelatedRun, ReportData, Verdict, load
from pipeline.history.related import add_related, complete_report
from pipeline.storage.store import Store
from pipeline.storage.workdir import Workdir


@pytest.fixture
def workdir(tmp_path):
    """The run `second #1` was compared with, and pushed after, the run `first #1`."""
    workdir = Workdir(str(tmp_path))
    recorder = Recorder(workdir.metadata)
    first = recorder.train("first #1")
    recorder.push("first #1", first, tmp_path / "serving" / "street" / "1790000001")
    second = recorder.train("second #1")
    recorder.node("second #1", "BaselineResolver", outputs={"model": first})
    recorder.node("second #1", "Evaluator", inputs={"model": second, "baseline_model": first})
    recorder.push("second #1", second, tmp_path / "serving" / "street" / "1790000002")
    return workdir


def _related(workdir, run_id="second #1"):
    store = Store(workdir.metadata)
    lineage = add_related(Lineage(baseline="unet"), workdir, store, run_id, store.executions(run_id))
    assert (lineage.run_id, lineage.baseline) == (run_id, "unet")
    return lineage.baseline_run, lineage.predecessor


def test_pages_of_one_work_directory_are_linked(workdir):
    os.makedirs(workdir.run("first #1"))
    page = os.path.join(workdir.run("first #1"), "report.html")
    open(page, "w").close()

    expected = RelatedRun("first #1", 1790000001, "../first%20%231/report.html")
    assert _related(workdir) == (dataclasses.replace(expected, why="served"), expected)


def test_without_a_report_they_are_named_without_a_link(workdir):
    first = RelatedRun("first #1", 1790000001)
    assert _related(workdir) == (dataclasses.replace(first, why="served"), first)


def test_a_baseline_that_is_better_than_the_served_version_has_that_reason(workdir):
    first, second = (artifact.id for artifact in Store(workdir.metadata).artifacts("Model"))
    recorder = Recorder(workdir.metadata)
    third = recorder.train("third")
    recorder.node("third", "BaselineResolver", outputs={"model": first, "served": second})
    recorder.node("third", "Evaluator", inputs={"model": third, "baseline_model": first})

    assert _related(workdir, "third") == (RelatedRun("first #1", 1790000001, why="best_of"), None)


def test_the_first_run_has_no_related_models(workdir):
    assert _related(workdir, "first #1") == (None, None)


def test_a_report_component_s_files_are_completed(workdir, tmp_path):
    class_map = ClassMap(names=("sky", "road"), colors=((0, 0, 0), (9, 9, 9)))
    lineage = Lineage(baseline="unet of execution 3")
    write(ReportData("unet", class_map, "val", Verdict(True), scores={}, lineage=lineage), str(tmp_path / "report"))

    complete_report(str(tmp_path / "report"), workdir, Store(workdir.metadata), "second #1")

    first = RelatedRun("first #1", 1790000001)
    baseline = dataclasses.replace(first, why="served")
    completed = dataclasses.replace(lineage, run_id="second #1", baseline_run=baseline, predecessor=first)
    assert load(str(tmp_path / "report")).lineage == completed
    assert (
        "unet of execution 3, run first #1, version 1790000001, the served version"
        in (tmp_path / "report" / "report.html").read_text()
    )


def test_without_the_object_store_versions_are_known_from_the_metadata(tmp_path, monkeypatch):
    def unreachable(folder):
        raise OSError("no route to host")

    monkeypatch.setattr("components.object_store.children", unreachable)
    workdir, recorder = Workdir(str(tmp_path)), Recorder(tmp_path / "metadata.sqlite")
    for number in (1, 2):
        model = recorder.train(f"run-{number}")
        recorder.push(f"run-{number}", model, f"s3://bucket/street/version-179000000{number}-0123abcd")

    assert _related(workdir, "run-2") == (None, RelatedRun("run-1", 1790000001))
