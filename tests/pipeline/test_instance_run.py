"""A run of the task instance from the command line, from a folder to the pushed model, and a second one under the gate.

The objects are drawn so plainly that a few steps find them, and a network that learned nothing does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

_DESCRIPTION = """\
name: shapes
classes:
  - {name: ground, color: [90, 90, 90]}
  - {name: disc, color: [220, 20, 60]}
  - {name: block, color: [0, 0, 142]}
# Against the order of the classes, so that a position in things is no class index.
things: [block, disc]
min_instance_pixels: 10
layout: {images: "{split}/images/{name}", masks: "{split}/masks/{name}.png", instances: "{split}/ids/{name}.png"}
splits: {train: train, val: val}
"""
_GROUND, _DISC, _BLOCK = (90, 90, 90), (220, 60, 60), (60, 60, 220)
# Other proportions than those of the network's input.
_OWN, _INPUT = (120, 160), "64x96"
_GATE = 0.3


def _scene(rng: np.random.Generator, empty: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a disc and a block, which may cover a part of it, and a speck that is too small to count; or nothing."""
    rows, columns = np.ogrid[: _OWN[0], : _OWN[1]]
    row, column = rng.integers(30, 90), rng.integers(30, 130)
    disc = (rows - row) ** 2 + (columns - column) ** 2 < rng.integers(15, 25) ** 2
    top, left = rng.integers(4, 60), rng.integers(4, 100)
    block = (abs(rows - top - 25) < 25) & (abs(columns - left - 15) < 15)
    ids = np.zeros(_OWN, np.uint8)
    if not empty:
        ids[disc], ids[block], ids[2:4, 2:4] = 1, 2, 3
    image = np.array([_GROUND, _DISC, _BLOCK, _DISC])[ids] + rng.normal(0, 12, (*_OWN, 3))
    return image.clip(0, 255).astype(np.uint8), np.array([0, 1, 2, 1], np.uint8)[ids], ids


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    (root / "segpipe.yaml").write_text(_DESCRIPTION)
    rng = np.random.default_rng(0)
    for split, number in (("train", 24), ("val", 8)):
        for index in range(number):
            parts = dict(zip(("images", "masks", "ids"), _scene(rng, empty=index == 0), strict=True))
            for name, pixels in parts.items():
                path = root / split / name / f"{index:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


def _run(data, work, *settings):
    """Returns exit code, standard output and the summary of the newest run."""
    settings = ("training.batch_size=4", "training.proposals=32", "training.augment=false", *settings)
    options = ["--model", "mask_rcnn", "--preset", "smoke", "--size", _INPUT, "--data", str(data), "--out", str(work)]
    assignments = [word for setting in (*settings, f"gate.min_mask_ap={_GATE}") for word in ("--set", setting)]
    command = [sys.executable, "-m", "pipeline.cli.main", "run", *options, *assignments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr[-2000:]
    with open(os.path.join(work, "latest", "summary.json")) as file:
        return done.returncode, done.stdout, json.load(file)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    trained = _run(data, work, "training.epochs=20", "training.validate_every=10")
    return trained, _run(data, work, "training.epochs=1"), work


def test_a_run_finds_the_objects_and_pushes_the_model(runs):
    code, output, summary = runs[0]

    assert code == 0, output
    assert summary["blessed"]
    metrics = summary["metrics"]
    assert set(metrics["class_mask_ap"]) == {"block", "disc"}
    assert min(metrics["class_mask_ap"].values()) > _GATE
    assert metrics["mask_ap50"] > 0.7
    assert "best mask AP50" in output


def test_the_report_shows_the_instances(runs):
    summary = runs[0][2]
    page = Path(runs[2], "runs", summary["run_id"], "report.html").read_text()
    for text in ("Mask AP</dt>", "AP75</th>", "Mask AP50"):
        assert text in page
    for absent in ("Confusion", "mean IoU"):
        assert absent not in page


def test_an_untrained_network_is_not_pushed_and_is_compared_with_the_baseline(runs):
    (_, _, first), (code, output, summary), _ = runs

    assert code == 3, output
    assert not summary["blessed"]
    assert summary["pushed"] is None
    assert summary["baseline_metrics"]["mask_ap"] == pytest.approx(first["metrics"]["mask_ap"])
    assert any("mask_ap" in failure for failure in summary["failures"])
    assert len(summary["failures"]) > 1
