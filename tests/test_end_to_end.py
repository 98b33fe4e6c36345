"""The whole pipeline from the command line, as a user runs it, on a small synthetic data set.

The runs share a work directory: a first run, the same run again, a run with a stricter gate, and a new training that is
killed and resumed.
"""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks import gallery, recipes
from benchmarks.finished_runs import newest_training
from benchmarks.test_time_augmentation import measure_scales, parse
from components.dataset import synthetic
from components.dataset.description import detect
from pipeline.cli.main import app

pytestmark = pytest.mark.slow

_SEGPIPE = [sys.executable, "-m", "pipeline.cli.main"]
_SETTINGS = (
    "model.base_filters=4",
    "training.epochs=2",
    "training.learning_rate=5e-3",
    "gate.min_mean_iou=0.01",
    "gate.min_class_iou={}",
    "gate.max_class_drop=1.0",
    "gate.max_mean_drop=1.0",
)
_BEFORE_TRAINING = ("ImageMaskExampleGen", "StatisticsGen", "ExampleValidator", "Transform")


def _command(data, work, *more):
    assignments = [word for setting in (*_SETTINGS, *more) for word in ("--set", setting)]
    options = ["--model", "unet", "--preset", "smoke", "--size", "32x48", "--data", data, "--out", work]
    return [*_SEGPIPE, "run", *options, *assignments]


def _run(data, work, *more):
    """Returns the exit code, the standard output and the summary of the newest run."""
    done = subprocess.run(_command(data, work, *more), capture_output=True, text=True, check=False)
    with open(os.path.join(work, "latest", "summary.json")) as file:
        return done.returncode, done.stdout, json.load(file)


def _run_in_terminal(data, work):
    """Returns the exit code, what the terminal shows and the summary of the newest run."""
    reader, writer = pty.openpty()
    with subprocess.Popen(_command(data, work), stdout=writer, stderr=writer) as process:
        os.close(writer)
        shown = b""
        # Reading a terminal whose other end is closed raises on Linux.
        with contextlib.suppress(OSError):
            while chunk := os.read(reader, 65536):
                shown += chunk
        os.close(reader)
    with open(os.path.join(work, "latest", "summary.json")) as file:
        return process.returncode, shown.decode(), json.load(file)


def _kill_after(line_start, data, work, *more):
    """Starts a run, kills it when a line of its output begins as given, and returns its output so far."""
    lines = []
    with subprocess.Popen(_command(data, work, *more), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            lines.append(line)
            if line.strip().startswith(line_start):
                process.kill()
    return lines


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """Runs the pipeline several times; the tests read the results by name."""
    root = tmp_path_factory.mktemp("end_to_end")
    data, work = str(root / "data"), str(root / "work")
    synthetic.make(data, pairs={"train": 24, "val": 8}, size=(48, 64))
    stations = {
        "data": data,
        "work": work,
        "first": _run(data, work),
        "again": _run_in_terminal(data, work),
        "strict": _run(data, work, "gate.min_class_iou={pedestrian: 0.99}"),
    }
    other = ("seed=8", "training.epochs=4")
    stations["killed"] = _kill_after("epoch 2/4", data, work, *other)
    stations["resumed"] = _run(data, work, *other)
    return stations


def test_a_first_run_pushes_a_model_and_writes_its_files(life):
    code, output, summary = life["first"]

    run = Path(life["work"], "runs", summary["run_id"])
    assert code == 0, output
    assert summary["blessed"]
    assert Path(summary["pushed"]).parent == Path(life["work"], "serving", "segpipe")
    assert Path(summary["pushed"], "saved_model.pb").is_file()
    assert {path.name for path in run.iterdir()} >= {"summary.json", "report.html", "config.yaml", "log.txt"}
    assert summary["data"]["examples"] == {"train": 24, "val": 8}
    assert summary["baseline_metrics"] is None
    assert set(summary["metrics"]["class_iou"]) == set(synthetic.CLASS_NAMES) - {"void"}
    assert all(seconds >= 0 for seconds in summary["timings"].values())
    assert str(run / "report.html") in output


def test_the_same_run_again_comes_from_the_cache_with_a_note(life):
    code, shown, summary = life["again"]

    first = life["first"][2]
    assert code == 0
    assert "every component came from the cache" in " ".join(shown.split())
    assert {state for node, state in summary["states"].items() if node != "BaselineResolver"} == {"cached"}
    assert summary["pushed"] == first["pushed"]
    assert summary["metrics"] == first["metrics"]
    assert summary["run_id"] != first["run_id"]


def test_a_terminal_shows_the_components_and_not_the_log(life):
    _, shown, _ = life["again"]

    assert "INFO" not in shown
    assert "WARNING" not in shown
    assert shown.rindex("Report") < shown.index("vegetation")


def test_a_stricter_gate_blocks_the_push_and_names_the_bound(life):
    code, output, summary = life["strict"]

    assert code == 3
    assert summary["pushed"] is None
    assert not summary["blessed"]
    assert summary["states"]["Trainer"] == "cached"
    assert "IoU of pedestrian" in output
    assert any("class_iou/pedestrian" in failure for failure in summary["failures"])


def test_a_killed_training_resumes_after_its_last_epoch(life):
    code, output, summary = life["resumed"]

    assert any("epoch 2/4" in line for line in life["killed"])
    assert code == 0, output
    assert {summary["states"][node] for node in _BEFORE_TRAINING} == {"cached"}
    assert "epoch 2/4" not in output
    assert "epoch 3/4" in output


def test_a_new_model_is_compared_with_the_last_blessed_one(life):
    _, output, summary = life["resumed"]

    assert summary["baseline_metrics"] == life["first"][2]["metrics"]
    assert "IoU before" in output
    assert int(Path(summary["pushed"]).name) > int(Path(life["first"][2]["pushed"]).name)


def test_evaluate_gives_the_scores_of_the_pipeline(life):
    _, _, summary = life["resumed"]
    command = [*_SEGPIPE, "evaluate", "--model", summary["pushed"], "--data", life["data"], "--json"]

    scores = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    for name, value in summary["metrics"].items():
        assert scores[name] == pytest.approx(value), name
    for name, bounds in summary["intervals"].items():
        assert scores["intervals"][name] == pytest.approx(bounds), name
    assert summary["change_intervals"].keys() == summary["intervals"].keys()


def test_evaluate_takes_images_as_large_as_the_model_does(life, tmp_path):
    model = shutil.copytree(life["resumed"][2]["pushed"], tmp_path / "1")
    path = model / "assets" / "segpipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_pixels": 100}))

    error = CliRunner().invoke(app, ["evaluate", "--model", str(model), "--data", life["data"]]).exception

    assert error.exit_code == 4
    assert "expected at most 100 pixels in all" in str(error)


def test_predict_writes_pictures_and_names_unreadable_images(life, tmp_path):
    images = sorted(Path(life["data"], "val").iterdir())[:2]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    command = ["predict", "--model", f"{life['work']}/serving/segpipe", "--out", str(tmp_path / "out")]

    done = CliRunner().invoke(app, [*command, *map(str, images), str(broken)])

    assert done.exit_code == 1
    assert "broken.png" in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{image.stem}_{kind}.png" for image in images for kind in ("mask", "color", "overlay")}


def test_runs_and_show_describe_the_runs_without_tensorflow(life):
    def ask(*words):
        command = [*_SEGPIPE, *words, "--out", life["work"], "--json"]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    summary = life["resumed"][2]
    runs = ask("runs")
    details = ask("show", summary["run_id"])

    assert [run["state"] for run in runs] == ["finished"] * 3 + ["interrupted in Trainer", "finished"]
    assert [run["gate"] for run in runs] == ["blessed", "blessed", "not blessed", "", "blessed"]
    assert details["run_id"] == summary["run_id"]
    assert details["pushed"] == summary["pushed"]
    assert details["data_hash"] == summary["data"]["content_hash"]
    assert details["mean_iou"] == pytest.approx(summary["metrics"]["mean_iou"], abs=1e-6)
    trainer = next(node for node in details["components"] if node["name"] == "Trainer")
    assert trainer["inputs"]["examples"]


def test_the_benchmarks_draw_the_results_of_runs(life, tmp_path):
    metrics = life["resumed"][2]["metrics"]

    result = recipes.read("toy", life["work"])
    recipes.draw([result], str(tmp_path / "recipes.svg"))
    description = detect(life["data"])
    frames = gallery.read_frames(life["data"], description, 2)
    predictions = gallery.load(life["work"]).predict([image for image, _ in frames])
    rows = {"toy": [prediction.mask for prediction in predictions]}
    gallery.draw(frames, rows, description.class_map, str(tmp_path / "gallery.png"))

    small_objects = np.mean([metrics["class_iou"][name] for name in recipes.SMALL_OBJECT_CLASSES])
    minutes = [minutes for minutes, _ in result.validations]
    assert (result.mean_iou, result.small_objects) == pytest.approx((metrics["mean_iou"], small_objects), abs=1e-4)
    assert minutes == sorted(set(minutes))
    assert len(minutes) == 4
    assert "<svg" in (tmp_path / "recipes.svg").read_text()
    with Image.open(tmp_path / "gallery.png") as picture:
        # Two columns of images: frame, truth and one model.
        assert picture.width / picture.height == pytest.approx(2 * 64 / (3 * 48), rel=0.05)


def test_the_benchmark_of_test_time_augmentation_scores_as_the_evaluation_does(life):
    _, executions = newest_training(life["work"])

    once, twice = (measure_scales(executions, *parse(text)).mean_iou for text in ("1", "1,2,flip"))

    assert once == pytest.approx(life["resumed"][2]["metrics"]["mean_iou"], abs=1e-6)
    assert twice != once


def test_bad_data_has_its_own_exit_code_and_the_file_is_named(tmp_path):
    data = str(tmp_path / "data")
    synthetic.make(data, pairs={"train": 4, "val": 2}, size=(48, 64))
    broken = min(Path(data, "train").iterdir())
    broken.write_bytes(broken.read_bytes()[:100])

    done = subprocess.run(_command(data, str(tmp_path / "work")), capture_output=True, text=True, check=False)

    assert done.returncode == 4
    assert broken.name in done.stderr
    assert "Traceback" not in done.stderr
