"""What `segpipe gc` keeps and what it removes, on a made-up history in a real ML Metadata store."""

import json
import os
import time
import types

import made_up
import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from recorded_runs import Recorder

from components import files
from components.errors import SegpipeError, UsageError
from components.pusher.moves import record_moves
from pipeline.configuration.loading import load_config
from pipeline.retention import collect as collecting
from pipeline.retention.collect import collect
from pipeline.retention.plan import make_plan
from pipeline.storage.store import Store
from pipeline.storage.workdir import Workdir
from trainer.checkpoints import Checkpoints, State

_DAY = 86400


@pytest.fixture
def history(tmp_path):
    return made_up.History(Workdir(str(tmp_path / "work")))


def _settings(best_of=1, **retention):
    settings = {"gate": {"best_of": best_of}, "retention": {"keep_runs": 1, "keep_versions": 1, **retention}}
    return load_config([("test", settings)])


def _version(history, number, model="unet"):
    return os.path.join(history.workdir.root, "serving", model, str(number))


def _paths(plan, kind):
    return {item.path for item in plan.items if item.kind == kind}


def _checkpoint(history, name, execution, age=0.0):
    folder = os.path.join(history.workdir.checkpoints, name)
    os.makedirs(folder)
    Checkpoints(folder, execution).save([], State(seed=1, values="epoch-0001.variables"))
    made_up.age(folder, age)
    return folder


def test_only_what_the_newest_run_needs_is_kept(history):
    first = history.run("first", blessed=False)
    second = history.run("second", cached={"ImageMaskExampleGen": first["ImageMaskExampleGen"]}, blessed=False)
    third = history.run(
        "third", cached={"ImageMaskExampleGen": first["ImageMaskExampleGen"]}, baseline=first["Trainer"]
    )

    plan = collect(history.workdir, _settings())

    assert history.live() == history.there() == {*third.values(), first["Trainer"]}
    assert plan.deleted == {*first.values(), *second.values()} - history.live()
    assert set(plan.removed.values()) == {"first", "second"}
    assert os.listdir(history.workdir.runs) == ["third"]
    assert Store(history.workdir.source).run_ids() == ["third"]
    # The launcher's folders are removed too, even those of executions whose artifact is kept.
    system = os.path.join(history.workdir.artifacts, "Trainer", ".system", "executor_execution")
    assert os.listdir(system) == [str(history.execution_of("third", "Trainer"))]
    assert sum(item.bytes for item in plan.items) == 1000 * len(plan.deleted) + 9 + 2 * 10


def test_a_second_time_nothing_is_left_to_remove(history):
    for name in ("first", "second"):
        history.run(name, blessed=False)
    collect(history.workdir, _settings())

    plan = collect(history.workdir, _settings())

    assert not plan.items
    assert not plan.removed


def test_a_failed_run_loses_its_unfinished_outputs_too(history):
    history.run("failed", nodes=("ImageMaskExampleGen", "Trainer"), state="failed")
    unfinished = os.path.join(
        history.workdir.artifacts, "Trainer", "model", str(history.execution_of("failed", "Trainer"))
    )
    assert os.path.isdir(unfinished)
    retried = history.retry("failed", "Trainer")
    history.run("second")

    collect(history.workdir, _settings())

    assert not os.path.exists(unfinished)
    assert not os.path.exists(retried)


def test_newest_and_served_versions_stay_with_the_runs_that_pushed_them(history, tmp_path):
    made = {n: history.run(f"run-{n}", version=_version(history, n), blessed=n != 2) for n in (1, 2, 3, 4)}
    files.write_bytes(os.path.join(_version(history, 9), "saved_model.pb"), b"pushed by hand")
    history.run("unblessed", blessed=False)
    config = tmp_path / "models.config"
    config.write_text(
        'model_config_list { config { name: "other" base_path: "/models/unet" model_platform: "tensorflow" '
        'model_version_policy { specific { versions: 2 } } version_labels { key: "stable" value: 2 } } }'
    )

    plan = collect(history.workdir, _settings(served_by=[str(config)]))

    assert sorted(os.listdir(os.path.dirname(_version(history, 1)))) == [".lock", "2", "4", "9"]
    assert plan.kept == {
        "unblessed": "among the newest 1",
        "run-4": "among the newest 1 blessed models",
        "run-2": f"pushed {_version(history, 2)}, which is kept",
    }
    assert {*made[2].values(), *made[4].values()} < history.there()


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("all {}", {"1", "2", "3"}), ("latest { num_versions: 2 }", {"2", "3"}), ("specific { versions: 1 }", {"1", "3"})],
)
def test_the_versions_of_a_server_s_policy_are_kept(history, tmp_path, policy, kept):
    for n in (1, 2, 3):
        history.run(f"run-{n}", version=_version(history, n), blessed=False)
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "unet" base_path: "/m" model_version_policy {{ {policy} }} }} }}'
    )

    collect(history.workdir, _settings(served_by=[str(config)]))

    assert {*os.listdir(os.path.dirname(_version(history, 1)))} - {".lock"} == kept


def test_the_versions_that_releases_labelled_are_kept(history):
    for n in (1, 2, 3, 4):
        history.run(f"run-{n}", version=_version(history, n), blessed=False)
    base = os.path.dirname(_version(history, 1))
    record_moves(base, {}, {"stable": 1})
    record_moves(base, {"stable": 1, "canary": 1}, {"stable": 2, "canary": 2, "previous": 1})
    record_moves(base, {"stable": 2, "canary": 2, "previous": 1}, {"stable": 2, "canary": 2})

    collect(history.workdir, _settings())

    assert {"1", "2", "3", "4"} & set(os.listdir(base)) == {"2", "4"}


def test_a_server_s_configuration_that_cannot_be_read_stops_it_before_anything_is_removed(history):
    for n in (1, 2):
        history.run(f"run-{n}", version=_version(history, n))
    before = history.there()

    with pytest.raises(SegpipeError, match="missing.config: No such file"):
        collect(history.workdir, _settings(served_by=["missing.config"]))

    assert history.there() == history.live() == before


def test_withdrawn_models_do_not_count_among_the_newest_blessed(history):
    history.run("good", version=_version(history, 1))
    history.run("bad", version=_version(history, 2))
    history.run("unblessed", blessed=False)
    record = {"2": {"why": "wrong labels", "when": "2026-01-31T12:00:00Z"}}
    files.write_bytes(
        os.path.join(os.path.dirname(_version(history, 2)), "withdrawn.json"), json.dumps(record).encode()
    )

    plan = make_plan(history.workdir, _settings())

    # "bad" stays for the newest version, which a server without labels serves.
    assert set(plan.kept) == {"good", "bad", "unblessed"}


def test_a_blessed_model_that_a_resolver_found_does_not_keep_the_run(history):
    first = history.run("first")
    history.run("second", blessed=False)
    recorder = Recorder(history.workdir.metadata)
    found = recorder.node("second", "BaselineResolver")
    recorder.add(found, mlmd.Event.INTERNAL_OUTPUT, {"model_blessing": first["Evaluator"]})
    history.run("third", blessed=False)

    assert set(make_plan(history.workdir, _settings()).kept) == {"first", "third"}


def test_the_models_that_the_gate_chooses_its_baseline_among_are_kept(history):
    for number in (1, 2, 3, 4):
        history.run(f"run-{number}", version=_version(history, number))

    plan = make_plan(history.workdir, _settings(best_of=3))

    assert set(plan.kept) == {"run-2", "run-3", "run-4"}


def test_each_project_keeps_its_newest_runs(history):
    for name in ("a-1", "b-1", "a-2", "b-2"):
        history.run(name, blessed=False, project=name[0])

    assert set(make_plan(history.workdir, _settings()).removed.values()) == {"a-1", "b-1"}


def test_runs_of_another_root_on_the_same_store_are_left_alone(history, tmp_path):
    other = history.run("other", blessed=False, root=str(tmp_path / "other" / "artifacts"))
    mine = history.run("mine", blessed=False)
    # The other root's second run took this root's examples from the cache.
    history.run(
        "theirs",
        cached={"ImageMaskExampleGen": mine["ImageMaskExampleGen"]},
        blessed=False,
        root=str(tmp_path / "other" / "artifacts"),
    )
    history.run("newest", blessed=False)

    plan = collect(history.workdir, _settings())

    assert set(plan.removed.values()) == {"mine"}
    assert {*other.values(), mine["ImageMaskExampleGen"]} < history.there() & history.live()
    assert mine["Trainer"] not in history.there()


def test_young_runs_are_kept(history):
    history.run("first", blessed=False)
    history.run("second", blessed=False)

    assert not make_plan(history.workdir, _settings(older_than="1h")).items
    assert make_plan(history.workdir, _settings(older_than="1h"), now=time.time() + 3601).items


def test_checkpoints_go_with_their_run_or_when_its_training_has_ended(history):
    history.run("first", nodes=("ImageMaskExampleGen", "Trainer"), state="running")
    history.run("second", blessed=False)
    history.run("stopped", nodes=("ImageMaskExampleGen", "Trainer"), state="running")
    gone, ended, waiting = (
        _checkpoint(history, name, str(history.execution_of(name, "Trainer")))
        for name in ("first", "second", "stopped")
    )
    unknown = _checkpoint(history, "unknown", "", age=_DAY)

    collect(history.workdir, _settings(keep_runs=2))

    assert [os.path.exists(path) for path in (gone, ended, waiting)] == [False, False, True]
    assert not os.path.exists(unknown)


def test_a_run_on_a_cluster_counts_as_running_while_it_writes(tmp_path):
    history = made_up.History(Workdir(str(tmp_path / "root"), shared=True))
    history.run("first", nodes=("ImageMaskExampleGen", "Trainer"), state="running")
    history.run("second", nodes=("ImageMaskExampleGen", "Trainer"), state="failed")
    history.run("third", blessed=False)
    history.run("fourth", blessed=False)
    later = time.time() + 2 * _DAY
    training = _checkpoint(history, "first", str(history.execution_of("first", "Trainer")), age=-2 * _DAY)
    stopped = _checkpoint(history, "second", str(history.execution_of("second", "Trainer")))

    now = make_plan(history.workdir, _settings(stopped_after="1d"))
    then = make_plan(history.workdir, _settings(stopped_after="1d"), now=later)

    assert not now.items
    assert set(then.removed.values()) == {"second", "third"}
    assert _paths(then, "checkpoints") == {stopped}
    assert then.kept["first"] == "running"
    assert os.path.exists(training)
    # A run also counts as running until the timeout of its task.
    slow = load_config([("test", _settings(stopped_after="1d").model_dump() | {"kubeflow": {"timeout": 4 * _DAY}})])
    assert "second" not in make_plan(history.workdir, slow, now=later).removed.values()


def test_checkpoints_of_a_stopped_run_on_a_cluster_go_though_the_run_is_kept(tmp_path):
    history = made_up.History(Workdir(str(tmp_path / "root"), shared=True))
    history.run("stopped", nodes=("ImageMaskExampleGen", "Trainer"), state="running")
    folder = _checkpoint(history, "stopped", str(history.execution_of("stopped", "Trainer")))

    plan = make_plan(history.workdir, _settings(stopped_after="1d"), now=time.time() + 2 * _DAY)

    assert _paths(plan, "checkpoints") == {folder}
    assert not plan.removed


def test_attempts_on_a_cluster_are_removed_when_they_stopped(tmp_path):
    history = made_up.History(Workdir(str(tmp_path / "root"), shared=True))
    history.run("first", blessed=False)
    history.run("second", blessed=False)
    for name in ("abc-alive", "abc-stopped"):
        _checkpoint(history, name, "", age=_DAY)
        files.write_bytes(os.path.join(history.workdir.checkpoints, f"{name}.alive"), b"1")
    then = time.time() - _DAY
    os.utime(os.path.join(history.workdir.checkpoints, "abc-stopped.alive"), (then, then))

    collect(history.workdir, _settings(stopped_after="12h"), settle=0)

    assert sorted(os.listdir(history.workdir.checkpoints)) == ["abc-alive", "abc-alive.alive"]


def test_artifacts_that_a_run_takes_from_the_cache_during_gc_are_kept(tmp_path, monkeypatch):
    history = made_up.History(Workdir(str(tmp_path / "root"), shared=True))
    first = history.run("first", blessed=False)
    history.run("second", blessed=False)
    taken = first["ImageMaskExampleGen"]

    def start_run(seconds):
        assert taken not in history.live()
        history.run("third", cached={"ImageMaskExampleGen": taken}, nodes=("ImageMaskExampleGen",))

    monkeypatch.setattr(collecting, "time", types.SimpleNamespace(sleep=start_run))
    later = time.time() + 2 * _DAY
    monkeypatch.setattr(collecting, "make_plan", lambda workdir, config: make_plan(workdir, config, now=later))

    plan = collect(history.workdir, _settings(stopped_after="7d"))

    assert taken in history.there() & history.live()
    assert first["Trainer"] not in history.there()
    assert set(plan.removed.values()) == {"first"}


def test_a_folder_of_a_run_that_failed_before_its_first_node_goes_when_newer_runs_are_kept(history):
    early = history.workdir.run("early")
    files.write_bytes(os.path.join(early, "log.txt"), b"found no GPU")
    made_up.age(early, _DAY)
    history.run("first", blessed=False)
    assert early in _paths(make_plan(history.workdir, _settings()), "runs")
    # With room for another run, it is one of the newest.
    assert not make_plan(history.workdir, _settings(keep_runs=2)).items


def test_an_age_without_a_unit_is_refused():
    with pytest.raises(UsageError, match=r"retention.older_than: found '30'"):
        _settings(older_than="30")


def test_the_run_that_finished_last_is_kept(history):
    history.run("good", blessed=False)
    history.workdir.point_latest("good")
    history.run("failed", nodes=("ImageMaskExampleGen",), state="failed")

    assert not make_plan(history.workdir, _settings()).removed
