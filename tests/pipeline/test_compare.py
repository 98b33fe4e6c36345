"""`segpipe compare`: differences of settings, data, code and scores, and which components ran again."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml
from recorded_runs import Recorder
from typer.testing import CliRunner

from components.errors import SegpipeError, UsageError
from pipeline.cli.main import app
from pipeline.history.compare import compare_runs
from pipeline.storage.workdir import Workdir

_SETTINGS = {
    "training": {"epochs": 3, "learning_rate": 0.01},
    "gate": {"min_class_iou": {}},
    "kubeflow": {"root": "/x"},
}
_CLASSES = {"names": ["sky", "road"]}


class Runs:
    """A work directory to which tests add whole runs."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.workdir = Workdir(str(root))
        self.recorder = Recorder(self.workdir.metadata)

    def add(self, run_id, scores, settings=_SETTINGS, data="d1", baseline=None, own_file=True, model=None, **report):
        """Records a run and returns the id of its model."""
        folder = self.root / "artifacts" / run_id
        folder.mkdir(parents=True)
        counts = {"examples": {"train": 10, "val": len(data)}, "quarantined": {"train": {"undecodable": len(data)}}}
        (folder / "counts.json").write_text(json.dumps(counts))
        content = {
            "scores": scores,
            "baseline_scores": None,
            "change_intervals": {},
            "gate_split": "val",
            "class_map": _CLASSES,
            "verdict": {"blessed": True},
            **report,
        }
        (folder / "report.json").write_text(json.dumps(content))
        if own_file:
            os.makedirs(self.workdir.run(run_id))
            pathlib.Path(self.workdir.run(run_id), "config.yaml").write_text(yaml.safe_dump(settings))
        record = self.recorder
        outputs = {
            "examples": record.artifact("Examples", input_fingerprint=data),
            "quarantine": record.artifact("Quarantine", uri=folder),
        }
        record.node(run_id, "ImageMaskExampleGen", outputs=outputs, properties={"code": f"code-{data}"})
        made = record.train(run_id, model, "cached" if model else "ran")
        inputs = {"model": made, **({"baseline_model": baseline} if baseline else {})}
        record.node(run_id, "Evaluator", inputs=inputs)
        recorded = {name: value for name, value in settings.items() if name != "kubeflow"}
        lineage = {"code_hash": "wiring", "packages": {"keras": "3.0", "tfx": run_id}}
        properties = {"configuration": json.dumps(recorded), "lineage": json.dumps(lineage)}
        report_id = record.artifact("Report", uri=folder)
        record.node(run_id, "Report", outputs={"report": report_id}, properties=properties)
        return made

    def compare(self, first="a", second="b"):
        return compare_runs(self.workdir, first, second)


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


def _settings(**training):
    return {**_SETTINGS, "training": {**_SETTINGS["training"], **training}}


def test_settings_that_differ_are_named(runs):
    runs.add("a", {})
    changed = {"kubeflow": {"root": "/y"}, "gate": {"min_class_iou": {"road": 0.5}}}
    runs.add("b", {}, {**_settings(epochs=5, optimizer="adam"), **changed})

    assert runs.compare()["settings"] == {
        "gate.min_class_iou.road": {"a": None, "b": 0.5},
        "kubeflow.root": {"a": "/x", "b": "/y"},
        "training.epochs": {"a": 3, "b": 5},
        "training.optimizer": {"a": None, "b": "adam"},
    }


def test_a_run_on_a_cluster_has_its_settings_in_the_metadata(runs):
    runs.add("a", {})
    runs.add("b", {}, _settings(epochs=5), own_file=False)

    assert runs.compare()["settings"] == {"training.epochs": {"a": 3, "b": 5}}


@pytest.mark.parametrize("own_file", [True, False])
def test_a_renamed_or_removed_setting_is_not_a_difference(runs, own_file):
    old = {"encoder_rate": 0.1, "color": 0, "exposure": 1, "blur": 0.5}
    runs.add("a", {}, {**_settings(**old), "auto_exposure": True}, own_file=own_file)
    runs.add("b", {}, {**_settings(encoder_lr_multiplier=0.2), "normalize_exposure": True}, own_file=own_file)

    assert runs.compare()["settings"] == {
        "training.blur": {"a": 0.5, "b": None},
        "training.encoder_lr_multiplier": {"a": 0.1, "b": 0.2},
    }


def test_settings_that_cannot_be_read_are_an_error(runs):
    runs.add("a", {})
    runs.add("b", {})
    path = pathlib.Path(runs.workdir.run("b"), "config.yaml")
    path.write_text("training: [")

    with pytest.raises(SegpipeError, match=r"b/config\.yaml: cannot be read .* expected the settings of run b"):
        runs.compare()


def test_data_code_and_packages(runs):
    runs.add("a", {}, data="d1")
    runs.add("b", {}, data="d20")

    found = runs.compare()

    assert found["data"] == {
        "same": False,
        "content_hash": {"a": "d1", "b": "d20"},
        "examples": {"train": {"a": 10, "b": 10}, "val": {"a": 2, "b": 3}},
        "quarantined": {"train": {"a": 2, "b": 3}},
    }
    assert found["code"] == {"ImageMaskExampleGen": {"a": "code-d1", "b": "code-d20"}}
    assert found["packages"] == {"tfx": {"a": "a", "b": "b"}}


def test_scores_of_the_same_data_get_a_verdict(runs):
    runs.add("a", {"mean_iou": 0.5, "expected_calibration_error": 0.2, "class_iou/sky": None, "class_iou/road": 0.25})
    runs.add("b", {"mean_iou": 0.75, "expected_calibration_error": 0.3, "class_iou/sky": 0.1, "class_iou/road": 0.25})

    scores = runs.compare()["scores"]

    assert scores["same_data"] is True
    assert scores["evaluated_in"] is None
    assert scores["metrics"]["mean_iou"] == {
        "a": 0.5,
        "b": 0.75,
        "change": 0.25,
        "change_interval": None,
        "verdict": "better",
    }
    verdicts = {name: row["verdict"] for name, row in scores["metrics"].items()}
    assert verdicts == {
        "mean_iou": "better",
        "expected_calibration_error": "worse",
        "class_iou/sky": None,
        "class_iou/road": "same",
    }


@pytest.mark.parametrize("change", [{"data": "d2"}, {"gate_split": "test"}, {"class_map": {"names": ["road", "sky"]}}])
def test_scores_of_other_data_get_no_verdict(runs, change):
    runs.add("a", {"mean_iou": 0.5})
    runs.add("b", {"mean_iou": 0.75}, **change)

    scores = runs.compare()["scores"]

    assert scores["same_data"] is False
    assert scores["metrics"]["mean_iou"]["change"] == 0.25
    assert scores["metrics"]["mean_iou"]["verdict"] is None


def test_a_baseline_is_compared_on_the_images_of_the_run_that_was_compared_with_it(runs):
    model = runs.add("a", {"mean_iou": 0.5, "mean_dice": 0.6})
    own = {"baseline_scores": {"mean_iou": 0.7, "mean_dice": 0.6}}
    intervals = {"mean_iou": [0.01, 0.09], "mean_dice": [-0.05, 0.2]}
    runs.add("b", {"mean_iou": 0.75, "mean_dice": 0.7}, data="d2", baseline=model, change_intervals=intervals, **own)

    forth, back = runs.compare("a", "b")["scores"], runs.compare("b", "a")["scores"]

    assert forth["evaluated_in"] == back["evaluated_in"] == "b"
    iou = forth["metrics"]["mean_iou"]
    assert (iou["a"], iou["b"], iou["change_interval"], iou["verdict"]) == (0.7, 0.75, [0.01, 0.09], "better")
    assert forth["metrics"]["mean_dice"]["verdict"] == "unclear"
    iou = back["metrics"]["mean_iou"]
    assert (iou["a"], iou["b"], iou["change_interval"], iou["verdict"]) == (0.75, 0.7, [-0.09, -0.01], "worse")


def test_components_that_ran_again_differ_from_cached_ones(runs):
    model = runs.add("a", {})
    runs.add("b", {}, model=model)
    runs.recorder.node("a", "AnomalyGate")
    runs.recorder.node("b", "AnomalyGate")
    runs.recorder.node("b", "Pusher", "failed")
    runs.recorder.node("b", "BaselineResolver")

    found = {row["name"]: row for row in runs.compare()["components"]}

    assert found["ImageMaskExampleGen"]["same_outputs"] is False
    assert (found["Trainer"]["a"], found["Trainer"]["b"]) == ("ran", "cached")
    assert found["Pusher"] == {"name": "Pusher", "a": None, "b": "failed", "same_outputs": None}
    assert found["AnomalyGate"]["same_outputs"] is None
    assert "BaselineResolver" not in found


def test_a_run_that_stopped_early_is_compared_as_far_as_it_went(runs):
    runs.add("a", {"mean_iou": 0.5})
    runs.recorder.node("b", "ImageMaskExampleGen", "failed")

    found = runs.compare()
    printed = CliRunner().invoke(app, ["compare", "a", "b", "--out", str(runs.root)])

    assert found["settings"] is found["packages"] is found["scores"] is found["data"]["same"] is None
    assert found["data"]["examples"]["train"] == {"a": 10, "b": None}
    assert printed.exception is None
    assert "Settings: not known, because a run did not finish." in printed.output
    assert "Scores: not known, because a run has no report." in printed.output


def test_results_that_were_removed_are_not_known(runs):
    for run_id in ("a", "b"):
        runs.add(run_id, {"mean_iou": 0.5})
        for path in (runs.root / "artifacts" / run_id).iterdir():
            path.unlink()

    found = runs.compare()

    assert found["scores"] is None
    assert found["data"]["examples"] == {}
    assert found["settings"] == {}


def test_an_unknown_run_is_an_error(runs):
    runs.add("a", {})

    with pytest.raises(UsageError, match="run 'b' is not in the metadata; known runs: a"):
        runs.compare()


def test_the_tables_show_the_differences(runs):
    runs.add("a", {"mean_iou": 0.5})
    runs.add("b", {"mean_iou": 0.75}, _settings(epochs=5), gate_split="test")

    printed = CliRunner().invoke(app, ["compare", "a", "b", "--out", str(runs.root)]).output

    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "training.epochs 3 5" in lines
    assert "Data: the same." in lines
    assert "mean_iou 0.500 0.750 +0.250" in lines
    assert "The scores are of different data, splits or classes, so a change may be due to those." in lines
    assert "Trainer ran ran new" in lines


def test_it_imports_neither_tensorflow_nor_tfx(runs):
    runs.add("a", {"mean_iou": 0.5})
    runs.add("b", {"mean_iou": 0.75})
    code = (
        "import sys; from typer.testing import CliRunner; from pipeline.cli.main import app; "
        f"result = CliRunner().invoke(app, ['compare', 'a', 'b', '--json', '--out', {str(runs.root)!r}]); "
        "assert result.exit_code == 0, result.exception; "
        "print([name for name in ('tensorflow', 'tfx', 'scipy', 'apache_beam') if name in sys.modules])"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"
