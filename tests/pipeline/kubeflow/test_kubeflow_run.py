"""The compiled pipeline runs with a process for every task, one MariaDB store and one pipeline root.

The Trainer of the first run is killed and retried. Meanwhile a new span of data arrives, and another run takes it. Then
the first run is repeated, in parallel with a run that the gate must block.
"""

import contextlib
import json
import threading
from pathlib import Path

import kfp_harness
import mariadb
import pytest

from components.dataset import synthetic
from pipeline.configuration.loading import load_config
from pipeline.kubeflow.node import workdir_of
from pipeline.kubeflow.tasks import TASKS

pytestmark = pytest.mark.slow

_SECRETS = {"metadata": {"password": mariadb.PASSWORD}}
_ARGUMENTS = {
    "model": "unet",
    "preset": "smoke",
    "size": "32x32",
    "epochs": 12,
    "min_mean_iou": 0.0,
    "max_class_drop": 1.0,
    "max_mean_drop": 1.0,
}
_GATES = {"QuarantineGate", "AnomalyGate"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings for a cluster whose shared volume is a folder and whose metadata store is MariaDB."""
    root = tmp_path_factory.mktemp("root")
    with mariadb.running(tmp_path_factory.mktemp("mariadb")) as port:
        yield {
            "model": {"base_filters": 4},
            "gate": {"min_class_iou": {}},
            "kubeflow": {
                "root": str(root),
                "volumes": {"shared": str(root)},
                "secret_env": {"metadata": {"password": "SEGPIPE_METADATA_PASSWORD"}},
                "env": {"TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"},
                "retries": 1,
                "retry_wait": 0,
                "timeout": 900,
                "metadata": {
                    "kind": "mysql",
                    "host": "127.0.0.1",
                    "port": port,
                    "database": mariadb.DATABASE,
                    "user": mariadb.USER,
                },
            },
        }


@pytest.fixture(scope="module")
def story(settings, tmp_path_factory, compiled):
    """Executes all runs once; the tests find them by name."""
    spans, arriving = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("arriving") / "span"
    for folder, seed in ((spans / "span-1", 1), (arriving, 2)):
        synthetic.make(str(folder), pairs={"train": 8, "val": 4}, size=(32, 32), seed=seed)
    package = compiled(settings)
    cluster = kfp_harness.Cluster(tmp_path_factory.mktemp("kubeflow"), _SECRETS)

    def run(name, **arguments):
        data = f"{spans}/span-{{span}}"
        return kfp_harness.Run(cluster, package, name, {**_ARGUMENTS, "data": data, **arguments})

    # The other run's model must not be blessed: a new baseline would make the first run evaluate its model again.
    first, other = run("first"), run("other", min_mean_iou=0.99)
    first.kill("trainer", at="epoch 3/12")
    with _started(first):
        # Both runs would write the same schema, so the first run writes it alone. Everything else runs in parallel.
        first.wait("examplegen")
        arriving.rename(spans / "span-2")
        other()
    again, strict = run("again", span="1"), run("strict", span="1", min_mean_iou=0.99)
    with _started(again):
        strict()
    return {item.id: item for item in (first, other, again, strict)}


@contextlib.contextmanager
def _started(run):
    """Executes a run in parallel with the block, and waits for its end."""
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture
def store(settings, monkeypatch):
    """The metadata store of the runs."""
    from pipeline.storage.store import Store

    monkeypatch.setenv("SEGPIPE_METADATA_PASSWORD", mariadb.PASSWORD)
    return Store(workdir_of(load_config([("test", settings)])).connection)


def _states(store, run_id):
    return {execution.node_id: execution.state for execution in store.executions(run_id)}


def _execution(store, run_id, node_id):
    (found,) = [execution for execution in store.executions(run_id) if execution.node_id == node_id]
    return found


def _pushed(store, run_id):
    return _execution(store, run_id, "Pusher").outputs["pushed_model"][0].properties


def _failures(run):
    return {name: task.log[-3000:] for name, task in run.tasks.items() if not task.succeeded}


def test_a_run_trains_and_pushes(story, store, settings):
    first = story["first"]

    assert first.succeeded, _failures(first)
    version = Path(_pushed(store, "first")["pushed_destination"])
    assert version.parent == Path(settings["kubeflow"]["root"], "serving", "segpipe")
    assert (version / "saved_model.pb").is_file()


def test_kubeflow_gets_scores_confusion_matrix_and_report(story):
    tasks = story["first"].tasks

    evaluator = tasks["evaluator"].artifacts
    matrix = evaluator["confusion_matrix"]["metadata"]["confusionMatrix"]
    page = Path(tasks["pusher-and-report"].artifacts["page"]["uri"]).read_text()
    assert 0 <= evaluator["scores"]["metadata"]["mean_iou"] <= 1
    assert [spec["displayName"] for spec in matrix["annotationSpecs"]] == list(synthetic.CLASS_NAMES)
    assert sum(sum(row["row"]) for row in matrix["rows"]) == 4 * 32 * 32
    assert '<dd class="code">first</dd>' in page  # the run's name, in the lineage


def test_a_task_s_log_is_short_and_names_the_full_one(story, settings):
    first, other = story["first"], story["other"]

    # The other run's Trainer trains all epochs in one attempt.
    for name, task in [*first.tasks.items(), *other.tasks.items()]:
        lines = task.log.splitlines()
        assert len(lines) <= 14, (name, task.log)
        log = Path(lines[0].rpartition("full log ")[2])
        assert log.parent.parent == Path(settings["kubeflow"]["root"], "runs")
        assert "INFO" in log.read_text()
    assert "-> examples" in first.tasks["examplegen"].log
    assert "<- examples" in first.tasks["statisticsgen"].log


def test_artifacts_are_shown_with_their_folders(story, store):
    metadata = story["first"].tasks["trainer"].artifacts["trained_model"]["metadata"]

    assert metadata["folder"] == _execution(store, "first", "Trainer").outputs["model"][0].uri


def test_a_killed_task_resumes_in_its_retry(story):
    trainer = story["first"].tasks["trainer"]

    assert trainer.exit_codes == [1, 0]
    assert "epoch 1/12" not in trainer.log
    assert "epoch 12/12" in trainer.log


def test_the_same_run_again_comes_from_the_cache(story, store):
    again = story["again"]

    assert again.succeeded, _failures(again)
    states = _states(store, "again")
    assert {state for node, state in states.items() if node != "BaselineResolver"} == {"cached"}
    assert _pushed(store, "again") == _pushed(store, "first")
    assert (
        again.tasks["evaluator"].artifacts["scores"]["metadata"]
        == (story["first"].tasks["evaluator"].artifacts["scores"]["metadata"])
    )


def test_a_model_below_the_bound_is_not_pushed(story, store):
    strict = story["strict"]

    assert strict.succeeded, _failures(strict)
    assert (_states(store, "strict")["Trainer"], _states(store, "strict")["Evaluator"]) == ("cached", "ran")
    for run_id in ("other", "strict"):
        assert not _execution(store, run_id, "Evaluator").outputs["blessing"][0].properties["blessed"]
        assert not _pushed(store, run_id)["pushed"]


def test_a_run_keeps_its_first_span(story, store):
    for run_id, span in (("first", "span-1"), ("other", "span-2")):
        assert _execution(store, run_id, "ImageMaskExampleGen").properties["input_base"].endswith(span)
        assert json.loads(_execution(store, run_id, "Report").properties["configuration"])["data"]["dir"].endswith(span)


def test_parallel_runs_are_separate(story, store):
    first, other = story["first"], story["other"]

    assert other.succeeded, _failures(other)
    for node in ("ImageMaskExampleGen", "Transform", "Trainer", "Evaluator"):
        mine, theirs = _execution(store, "first", node), _execution(store, "other", node)
        assert mine.state == theirs.state == "ran"
        for key in mine.outputs:
            assert mine.outputs[key][0].uri != theirs.outputs[key][0].uri
    assert (
        first.tasks["evaluator"].artifacts["confusion_matrix"]["metadata"]
        != other.tasks["evaluator"].artifacts["confusion_matrix"]["metadata"]
    )


@pytest.mark.parametrize("run_id", ["first", "other", "again", "strict"])
def test_the_lineage_of_every_run_is_complete(story, store, run_id):
    executions = store.executions(run_id)

    assert len(executions) == sum(map(len, TASKS.values())) - len({"StartResolver", "Optimizer"})
    assert len(story[run_id].tasks) == len(TASKS) - 1
    assert {execution.state for execution in executions} <= {"ran", "cached"}
    made = {artifact.id for execution in executions for group in execution.outputs.values() for artifact in group}
    for execution in executions:
        read = {artifact.id for group in execution.inputs.values() for artifact in group}
        assert read <= made, execution.node_id
        assert execution.outputs or execution.node_id in {*_GATES, "BaselineResolver"}, execution.node_id


def test_no_temporary_files_remain_in_the_shared_folders(story, settings):
    root = Path(settings["kubeflow"]["root"])

    assert not list((root / "checkpoints").iterdir())
    assert all(path.name.isdigit() for path in (root / "serving" / "segpipe").iterdir() if path.is_dir())
