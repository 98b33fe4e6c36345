"""`segpipe evaluate`: the scores of a split, with intervals, from one batch of images at a time."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from components.dataset import checks
from components.dataset.description import load
from components.errors import UsageError
from components.metrics.bootstrap import change_intervals, score_intervals
from components.metrics.confusion import confusion_matrix
from components.metrics.diagnostics import Diagnostics
from components.metrics.scores import mean_iou, nested, scores
from components.metrics.tally import Tally
from pipeline.cli import models
from pipeline.cli.main import app
from serving.predictor import Evaluated

_FRAMES = 20
_DESCRIPTION = """
classes:
  - {name: road, color: [128, 0, 0]}
  - {name: sky, color: [0, 128, 0]}
  - {name: bird, color: [0, 0, 128]}
splits: {val: val}
layout: {images: "{split}/{name}.png", masks: "{split}/{name}_mask.png"}
"""


class Channel:
    """A predictor that takes one channel of the image for the class; stands for `serving.predictor.Predictor`."""

    def __init__(self, class_map, read, channel=0):
        self.directory = f"model {channel}"
        self.metadata = {}
        self.class_map = class_map
        self._read = read
        self._channel = channel
        self.read_before = []

    def evaluate(self, images):
        self.read_before.append(len(self._read))
        pixels = [np.asarray(Image.open(self._read[image])) for image in images]
        return [Evaluated(image[..., self._channel], image[..., 2]) for image in pixels]


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
        # The other model is the better one on every third frame; they agree on the last.
        image[..., 1] = np.where(random.random((8, 12)) < (0.95 if index % 3 == 0 else 0.5), truth, 1 - truth)
        if index == _FRAMES - 1:
            image[..., 1] = prediction
        Image.fromarray(image).save(folder / "val" / f"{index:05}.png")
        Image.fromarray(truth).save(folder / "val" / f"{index:05}_mask.png")
        truths.append(truth)
        predictions.append(prediction)
    return folder, truths, predictions


@pytest.fixture
def predictor(predictors):
    """The predictor of `--model`."""
    return predictors["--model"]


@pytest.fixture
def predictors(data, monkeypatch):
    """The predictors of `segpipe evaluate` by option; they know which images were read so far."""
    folder, *_ = data
    read = {}
    real = checks.read_pair

    def read_pair(root, pair, *rest):
        sample = real(root, pair, *rest)
        if isinstance(sample, checks.Sample):
            read[sample.image] = folder / pair.image
        return sample

    class_map = load(str(folder / "segpipe.yaml")).class_map
    made = {"--model": Channel(class_map, read), "--against": Channel(class_map, read, 1)}
    monkeypatch.setattr(checks, "read_pair", read_pair)
    monkeypatch.setattr(models, "load_predictor", lambda model, option: made[option])
    monkeypatch.setattr("serving.predictor.read_metadata", lambda directory: {})
    monkeypatch.setattr("serving.predictor.find_version", lambda model, option: model)
    return made


def evaluate(folder, *options):
    command = ["evaluate", "--model", "m", "--data", str(folder), "--description", str(folder / "segpipe.yaml")]
    return CliRunner().invoke(app, [*command, *options])


def test_scores_and_intervals_are_those_of_the_split(data, predictor):
    folder, truths, predictions = data
    tally, diagnostics = Tally.empty(predictor.class_map), Diagnostics.empty(predictor.class_map)
    for index, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
        image = (folder / "val" / f"{index:05}.png").read_bytes()
        tally.add(confusion_matrix(truth, prediction, 3), image)
        confidence = np.asarray(Image.open(folder / "val" / f"{index:05}.png"))[..., 2]
        diagnostics.add(Diagnostics.of_image(truth, prediction, predictor.class_map, confidence))

    result = evaluate(folder, "--json")

    found = json.loads(result.stdout[result.stdout.index("{") :])
    assert found["frames"] == _FRAMES
    assert found["class_iou"] == nested(scores(tally.matrix, predictor.class_map))["class_iou"]
    assert found["class_iou"]["bird"] is None
    assert found["diagnostics"] == diagnostics.to_dict(predictor.class_map)
    assert found["diagnostics"]["expected_calibration_error"] > 0.1
    expected = score_intervals(tally.resampled())
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


def matrices(data):
    """Returns each frame's confusion matrix of the model, and of the other one."""
    folder, truths, predictions = data
    others = [np.asarray(Image.open(folder / "val" / f"{index:05}.png"))[..., 1] for index in range(_FRAMES)]
    return [
        [confusion_matrix(truth, mask, 3) for truth, mask in zip(truths, masks, strict=True)]
        for masks in (predictions, others)
    ]


def test_a_comparison_pairs_the_models_by_image(data, predictors):
    class_map = predictors["--model"].class_map
    both = matrices(data)
    tallies = []
    for own in both:
        tallies.append(Tally.empty(class_map))
        for index, matrix in enumerate(own):
            tallies[-1].add(matrix, (data[0] / "val" / f"{index:05}.png").read_bytes())
    changes = [mean_iou(after, class_map) - mean_iou(before, class_map) for after, before in zip(*both, strict=True)]
    order = sorted(range(_FRAMES), key=lambda index: changes[index])

    result = evaluate(data[0], "--against", "old", "--json")

    found = json.loads(result.stdout[result.stdout.index("{") :])
    assert (found["model"], found["against"]) == ("model 0", "model 1")
    assert found["class_iou"] == nested(scores(tallies[0].matrix, class_map))["class_iou"]
    assert found["baseline"] == nested(scores(tallies[1].matrix, class_map))
    expected = change_intervals(tallies[0].resampled(), tallies[1].resampled())
    assert found["change_intervals"]["mean_iou"] == pytest.approx(expected["mean_iou"])
    assert found["better"] == sum(change > 0 for change in changes) > 5
    assert found["worse"] == sum(change < 0 for change in changes) > 5
    assert found["better"] + found["worse"] == _FRAMES - 1
    assert [image["name"] for image in found["worsened"]] == [f"{index:05}" for index in order[:5]]
    assert [image["name"] for image in found["improved"]] == [f"{index:05}" for index in order[:-6:-1]]
    assert found["improved"][0]["change"] == pytest.approx(max(changes))


def test_a_comparison_reads_every_image_once_and_keeps_few(data, predictors):
    assert evaluate(data[0], "--against", "old").exit_code == 0

    assert [model.read_before for model in predictors.values()] == [[8, 16, 20]] * 2


def test_a_comparison_is_printed_with_the_images_that_changed_most(data, predictors):
    output = evaluate(data[0], "--against", "old").stdout

    assert "model 0 on 20 frames of val, against model 1" in output
    road = next(line for line in output.splitlines() if line.strip().startswith("road"))
    iou, _, _, _, before, change, low, high = (float(word) for word in road.split()[1:])
    assert change == pytest.approx(iou - before, abs=0.0011)
    assert low < change < high
    improved, worsened = output.index("most improved"), output.index("most worsened")
    assert output.index("images got better") < improved < worsened
    assert len(output[improved:worsened].strip().splitlines()) == 6


def test_models_of_other_classes_are_not_compared(data, predictors):
    others = dataclasses.replace(predictors["--against"].class_map, names=("road", "sky", "plane"))
    predictors["--against"].class_map = others

    result = evaluate(data[0], "--against", "old")

    assert isinstance(result.exception, UsageError)
    assert "--against: found a model of the classes road, sky, plane" in str(result.exception)


def test_a_page_without_another_model_is_refused(data, predictors):
    result = evaluate(data[0], "--report", "page.html")

    assert "--report: found no --against" in str(result.exception)


def test_the_page_shows_the_images_that_changed_most_with_truth_and_both_predictions(data, predictors, tmp_path):
    page = tmp_path / "page.html"

    result = evaluate(data[0], "--against", "old", "--report", str(page), "--json")

    found = json.loads(result.stdout[result.stdout.index("{") :])
    html = page.read_text()
    for image in (*found["improved"], *found["worsened"]):
        kinds = re.findall(rf'alt="(.*) of frame {image["name"]}"', html)
        assert kinds == ["Image", "Truth", "Baseline", "Model"]
    name = found["worsened"][0]["name"]
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
        for encoded in re.findall(rf'src="data:image/png;base64,([^"]+)" alt="[TBM].* of frame {name}"', html)
    ]
    index, colors = int(name), predictors["--model"].class_map
    other = np.asarray(Image.open(data[0] / "val" / f"{name}.png"))[..., 1]
    for drawn, mask in zip(shown, (data[1][index], other, data[2][index]), strict=True):
        np.testing.assert_array_equal(drawn, colors.colorize(mask))
    assert f"{found['better']} images got better, {found['worse']} worse, 1 stayed" in " ".join(html.split())
    assert not re.search(r'(src|href)="(?!data:|#)', html)


def test_the_worst_sequences_are_listed_worst_first(data, predictors):
    found = evaluate(data[0], "--json").stdout
    single = json.loads(found[found.index("{") :])["worst_sequences"]
    class_map = predictors["--model"].class_map
    ranked = sorted(mean_iou(matrix, class_map) for matrix in matrices(data)[0])

    assert [row["mean_iou"] for row in single] == pytest.approx(ranked[:10])
    assert {row["baseline_mean_iou"] for row in single} == {None}
    compared = evaluate(data[0], "--against", "old").stdout
    lines = compared[compared.index("worst sequences") :].splitlines()
    assert lines[0].split() == ["worst", "sequences", "mean", "IoU", "before", "change"]
    assert [float(line.split()[1]) for line in lines[1:11]] == pytest.approx(ranked[:10], abs=0.0006)
