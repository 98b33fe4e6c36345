"""`segpipe evaluate` on models of instances: average precision, alone and against another model."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from components import features
from components.dataset import checks
from components.dataset.description import load
from components.drawing import png_bytes
from components.errors import DataRejectedError, UsageError
from components.instances import boxes
from pipeline.cli import models
from pipeline.cli.main import app

_DESCRIPTION = """
classes:
  - {name: road, color: [128, 0, 0]}
  - {name: car, color: [0, 128, 0]}
things: [car]
splits: {val: val}
layout: {images: "{split}/{name}.png", masks: "{split}/{name}_mask.png"}
"""


class Truthful:
    """Finds the true instances of each image, or only the first; stands for `serving.predictor.Predictor`."""

    def __init__(self, directory, class_map, most):
        self.directory, self.class_map, self._most = directory, class_map, most
        self.metadata = {"things": ["car"]}
        self.truths = {}

    def find_instances(self, images, limits):
        assert {name: len(values) for name, values in limits.items()} == dict.fromkeys(
            ("score_threshold", "max_instances"), len(images)
        )
        return [self._found(self.truths[image]) for image in images]

    def _found(self, truth):
        masks = truth.masks[: self._most]
        pngs = [png_bytes(mask.astype(np.uint8) * 255) for mask in masks]
        return {
            features.BOXES: np.concatenate([boxes(masks), np.zeros((1, 4), np.float32)]),
            features.CLASSES: np.array([*truth.classes[: self._most], -1]),
            features.SCORES: np.array([*np.linspace(0.9, 0.5, len(masks)), 0], np.float32),
            features.INSTANCE_PNG: np.array([*pngs, b""], object),
        }


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Calls the command on ten images of two cars; the model finds both, the one of `--against` one of them."""
    folder = tmp_path / "data"
    (folder / "val").mkdir(parents=True)
    (folder / "segpipe.yaml").write_text(_DESCRIPTION)
    random = np.random.default_rng(0)
    for index in range(10):
        mask = np.zeros((24, 32), np.uint8)
        mask[2:12, 2:10] = mask[8:20, 16:28] = 1
        for kind, pixels in (("", random.integers(0, 256, (24, 32, 3))), ("_mask", mask)):
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "val" / f"{index}{kind}.png")
    class_map = load(str(folder / "segpipe.yaml")).class_map
    made = {"--model": Truthful("good", class_map, 2), "--against": Truthful("poor", class_map, 1)}
    read_pair = checks.read_pair

    def read(*words):
        sample = read_pair(*words)
        for predictor in made.values():
            predictor.truths[sample.image] = sample.instances
        return sample

    tasks = {"good": "instance", "poor": "instance", "masks": "semantic"}
    monkeypatch.setattr(checks, "read_pair", read)
    monkeypatch.setattr(models, "load_predictor", lambda model, option: made[option])
    monkeypatch.setattr("serving.predictor.read_metadata", lambda directory: {"task": tasks[directory]})
    monkeypatch.setattr("serving.predictor.find_version", lambda model, option: model)

    def call(*options):
        words = ["evaluate", "--model", "good", "--data", str(folder), "--description", str(folder / "segpipe.yaml")]
        return CliRunner().invoke(app, [*words, *options], catch_exceptions=False)

    call.folder = folder
    return call


def _json(result):
    return json.loads(result.stdout[result.stdout.index("{") :])


def test_average_precision_of_a_split(evaluate):
    found = _json(evaluate("--json"))

    assert (found["model"], found["split"], found["frames"]) == ("good", "val", 10)
    assert (found["mask_ap"], found["class_mask_ap"], found["box_ap50"]) == (1, {"car": 1}, 1)
    assert found["intervals"]["mask_ap"] == [1, 1]


def test_two_models_are_compared_on_the_same_images(evaluate):
    found = _json(evaluate("--against", "poor", "--json"))

    # Half of the cars are found, at a precision of 1: 51 of COCO's 101 recalls.
    assert found["baseline"]["mask_ap"] == pytest.approx(51 / 101)
    assert found["change_intervals"]["mask_ap"] == pytest.approx([50 / 101] * 2)
    rows = [line.split() for line in evaluate("--against", "poor").stdout.splitlines()]
    assert next(row for row in rows if row[:1] == ["car"])[1] == "1.000"


def test_the_report_shows_instances_and_their_average_precision(evaluate, tmp_path):
    page = tmp_path / "page.html"

    found = evaluate("--against", "poor", "--report", str(page))

    text = page.read_text()
    assert "Mask AP higher by 0.495" in text
    assert "10 images got better, 0 worse" in text
    assert "By the change of mask AP over the classes" in text
    assert 'id="sequences"' not in text
    # Five images: photo, truth, and both predictions, all different because predictions have scores.
    drawn = [re.findall(r'src="(data:image/[^"]+)"', figure) for figure in text.split("<figure")[1:]]
    assert [len(set(addresses)) for addresses in drawn] == [4] * 5
    assert "10 of 10 images got better" in found.stdout
    rows = [line.split() for line in found.stdout.splitlines()]
    assert ["0", "1.000", "0.505", "+0.495"] in rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "masks"], "--model of the task instance and --against of the task semantic"),
    ],
)
def test_incompatible_models_and_data_are_refused(evaluate, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=message):
        evaluate(*options)


def test_data_of_other_things_or_without_any_is_refused(evaluate):
    for path in (evaluate.folder / "val").glob("*_mask.png"):
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(path)
    with pytest.raises(DataRejectedError, match="--split val: found no instance of car"):
        evaluate()
    description = evaluate.folder / "segpipe.yaml"
    description.write_text(_DESCRIPTION.replace("things: [car]", "things: [road]"))
    with pytest.raises(UsageError, match="found the things road; expected those of good, car"):
        evaluate()
