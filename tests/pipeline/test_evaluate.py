"""`segpipe evaluate`: the scores of a split, with intervals, from one batch of images at a time."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from components.dataset import checks
from components.dataset.description import load
from components.metrics.bootstrap import score_intervals
from components.metrics.confusion import confusion_matrix
from components.metrics.scores import scores
from components.metrics.tally import Tally
from pipeline.cli import models
from pipeline.cli.main import app

_FRAMES = 20
_DESCRIPTION = """
classes:
  - {name: road, color: [128, 0, 0]}
  - {name: sky, color: [0, 128, 0]}
  - {name: bird, color: [0, 0, 128]}
splits: {val: val}
layout: {images: "{split}/{name}.png", masks: "{split}/{name}_mask.png"}
"""


class RedChannel:
    """A predictor that takes the image's red channel for the class; stands for `serving.predictor.Predictor`."""

    def __init__(self, class_map, read):
        self.directory = "a model"
        self.metadata = {}
        self.class_map = class_map
        self._read = read
        self.read_before = []

    def predict(self, images):
        self.read_before.append(len(self._read))
        return [SimpleNamespace(mask=np.asarray(Image.open(self._read[image]))[..., 0]) for image in images]


@pytest.fixture
def data(tmp_path):
    """Frames in the split val: (folder, truths, predictions); no bird is true."""
    random = np.random.default_rng(4)
    folder = tmp_path / "data"
    (folder / "val").mkdir(parents=True)
    (folder / "segpipe.yaml").write_text(_DESCRIPTION)
    truths, predictions = [], []
    for index in range(_FRAMES):
        truth = random.integers(0, 2, (8, 12)).astype(np.uint8)
        prediction = np.where(random.random((8, 12)) < 0.7, truth, random.integers(0, 3, (8, 12))).astype(np.uint8)
        image = random.integers(0, 256, (8, 12, 3)).astype(np.uint8)
        image[..., 0] = prediction
        Image.fromarray(image).save(folder / "val" / f"{index:05}.png")
        Image.fromarray(truth).save(folder / "val" / f"{index:05}_mask.png")
        truths.append(truth)
        predictions.append(prediction)
    return folder, truths, predictions


@pytest.fixture
def predictor(data, monkeypatch):
    """The predictor of `segpipe evaluate`; it knows which images were read so far."""
    folder, *_ = data
    read = {}
    real = checks.read_pair

    def read_pair(root, pair, *rest):
        sample = real(root, pair, *rest)
        if isinstance(sample, checks.Sample):
            read[sample.image] = folder / pair.image
        return sample

    made = RedChannel(load(str(folder / "segpipe.yaml")).class_map, read)
    monkeypatch.setattr(checks, "read_pair", read_pair)
    monkeypatch.setattr(models, "load_predictor", lambda model: made)
    monkeypatch.setattr("serving.predictor.read_metadata", lambda directory: {})
    monkeypatch.setattr("serving.predictor.find_version", lambda model: model)
    return made


def evaluate(folder, *options):
    command = ["evaluate", "--model", "m", "--data", str(folder), "--description", str(folder / "segpipe.yaml")]
    return CliRunner().invoke(app, [*command, *options])


def test_scores_and_intervals_are_those_of_the_split(data, predictor):
    folder, truths, predictions = data
    tally = Tally.empty(predictor.class_map)
    for index, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
        image = (folder / "val" / f"{index:05}.png").read_bytes()
        tally.add(confusion_matrix(truth, prediction, 3), image)

    result = evaluate(folder, "--json")

    found = json.loads(result.stdout[result.stdout.index("{") :])
    assert found["frames"] == _FRAMES
    assert found["class_iou"] == scores(tally.matrix, predictor.class_map).to_dict()["class_iou"]
    assert found["class_iou"]["bird"] is None
    expected = score_intervals(tally.resamples, predictor.class_map)
    assert found["intervals"]["mean_iou"] == pytest.approx(expected["mean_iou"])
    assert "class_iou/bird" not in found["intervals"]


def test_images_are_read_batch_by_batch(data, predictor):
    assert evaluate(data[0]).exit_code == 0

    assert predictor.read_before == [8, 16, 20]


def test_the_table_shows_intervals(data, predictor):
    output = evaluate(data[0]).stdout

    road = next(line for line in output.splitlines() if line.strip().startswith("road"))
    iou, low, high, dice = (float(word) for word in road.split()[1:])
    assert low < iou < high < dice
    assert "absent" in next(line for line in output.splitlines() if line.strip().startswith("bird"))


def test_a_bad_pair_is_named(data, predictor):
    (data[0] / "val" / "00003_mask.png").write_bytes(b"")

    result = evaluate(data[0])

    assert result.exit_code != 0
    assert "00003_mask.png" in str(result.exception)
