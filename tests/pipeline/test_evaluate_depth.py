"""`segpipe evaluate` on models that estimate depth: their errors against the depth maps beside the images."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from components.dataset.description import load
from pipeline.cli import models
from pipeline.cli.main import app
from serving.predictor import Evaluated

_SCALE, _OWN_SCALE = 100, 256  # of the data set and of the models
_DESCRIPTION = f"""
classes:
  - {{name: road, color: [128, 0, 0]}}
  - {{name: sky, color: [0, 128, 0]}}
splits: {{val: val}}
depth_scale: {_SCALE}
layout: {{images: "{{split}}/{{name}}.png", masks: "{{split}}/{{name}}_mask.png", depth: "{{split}}/{{name}}_d.png"}}
"""


class Estimator:
    """Estimates the depth of every pixel as a number of metres.

    It stands for `serving.predictor.Predictor`; tests/trainer/test_depth_task.py evaluates an exported model.
    """

    def __init__(self, directory, class_map, metres):
        self.directory, self.class_map, self._metres = directory, class_map, metres
        self.metadata = {"depth_scale": _OWN_SCALE} if metres else {}

    def evaluate(self, images):
        mask, png = np.zeros((8, 12), np.uint8), None
        if self._metres:
            buffer = io.BytesIO()
            Image.fromarray(np.full((8, 12), self._metres * _OWN_SCALE, np.uint16)).save(buffer, "PNG")
            png = buffer.getvalue()
        return [Evaluated(mask, mask, png) for _ in images]


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Calls the command on images at a distance of 8 metres, half of whose pixels are unknown."""
    folder = tmp_path / "data"
    (folder / "val").mkdir(parents=True)
    (folder / "segpipe.yaml").write_text(_DESCRIPTION)
    random = np.random.default_rng(0)
    depth = np.full((8, 12), 8 * _SCALE, np.uint16)
    depth[:4] = 0
    for index in range(4):
        Image.fromarray(random.integers(0, 256, (8, 12, 3)).astype(np.uint8)).save(folder / "val" / f"{index}.png")
        Image.fromarray(np.zeros((8, 12), np.uint8)).save(folder / "val" / f"{index}_mask.png")
        Image.fromarray(depth).save(folder / "val" / f"{index}_d.png")
    class_map = load(str(folder / "segpipe.yaml")).class_map
    made = {each: Estimator(each, class_map, metres) for each, metres in (("far", 10), ("exact", 8), ("masks", 0))}
    monkeypatch.setattr(models, "load_predictor", lambda model, option: made[model])
    monkeypatch.setattr("serving.predictor.read_metadata", lambda directory: {})
    monkeypatch.setattr("serving.predictor.find_version", lambda model, option: model)

    def call(model, *options):
        words = ["evaluate", "--model", model, "--data", str(folder), "--description", str(folder / "segpipe.yaml")]
        result = CliRunner().invoke(app, [*words, *options], catch_exceptions=False)
        return json.loads(result.stdout[result.stdout.index("{") :]) if "--json" in options else result.stdout

    call.folder = folder
    return call


def test_errors_of_depth_are_measured_in_metres_of_the_data_set(evaluate):
    found = evaluate("far", "--json")

    assert {name: found[name] for name in ("abs_rel", "rmse", "delta_1")} == {"abs_rel": 0.25, "rmse": 2, "delta_1": 0}
    assert found["intervals"]["rmse"] == [2, 2]
    assert "depth: absolute relative error 0.250, RMSE 2.00 m, within 25 % 0.000" in evaluate("far")


def test_two_models_of_depth_are_compared(evaluate, tmp_path):
    page = tmp_path / "page.html"

    found = evaluate("exact", "--against", "far", "--json", "--report", str(page))

    assert (found["abs_rel"], found["baseline"]["abs_rel"]) == (0, 0.25)
    assert found["change_intervals"]["rmse"] == [-2, -2]
    assert "RMSE of depth in metres" in page.read_text()
    printed = evaluate("exact", "--against", "far")
    assert "\ndepth: absolute relative error 0.000" in printed
    assert "\nbefore, depth: absolute relative error 0.250" in printed


def test_a_model_of_depth_is_compared_with_one_of_masks_by_masks(evaluate, tmp_path):
    page = tmp_path / "page.html"

    found = evaluate("far", "--against", "masks", "--json", "--report", str(page))

    assert found["abs_rel"] == 0.25
    assert "abs_rel" not in found["baseline"]
    assert "rmse" not in found["change_intervals"]
    assert "RMSE of depth in metres" in page.read_text()
    assert "abs_rel" not in evaluate("masks", "--against", "far", "--json")["change_intervals"]


@pytest.mark.parametrize("missing", ["0_d.png", "*_d.png"])
def test_images_without_a_depth_map_count_for_masks(evaluate, missing):
    for path in evaluate.folder.glob(f"val/{missing}"):
        path.unlink()

    found = evaluate("far", "--json")

    assert (found["frames"], found["class_iou"]["road"]) == (4, 1)
    assert found["abs_rel"] == (None if missing == "*_d.png" else 0.25)
    assert ("depth:" in evaluate("far")) == (missing != "*_d.png")


def test_without_depth_maps_only_masks_are_scored(evaluate):
    for path in evaluate.folder.glob("val/*_d.png"):
        path.unlink()
    description = evaluate.folder / "segpipe.yaml"
    description.write_text(
        "\n".join(
            line.partition(", depth")[0] + "}" if "layout" in line else line
            for line in _DESCRIPTION.splitlines()
            if "depth_scale" not in line
        )
    )

    found = evaluate("far", "--json")

    assert found["class_iou"]["road"] == 1
    assert "abs_rel" not in found
