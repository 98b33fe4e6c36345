"""The report of a model of instances: its frames, its tables and the sections that it leaves out."""

from __future__ import annotations

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from components import drawing, features
from components.class_map import ClassMap
from components.examples import RawExample
from components.instances import Instances
from components.metrics.threshold_check import ThresholdCheck
from components.report.data import ReportData, SequenceScore, Verdict
from components.report.frames import draw, score_pairs
from components.report.render import render

CLASS_MAP = ClassMap(("road", "car", "bus"), ((1, 1, 1), (0, 0, 200), (0, 200, 0)))
SIZE = (60, 80)
BOX = np.s_[10:30, 10:40]


def png(pixels: np.ndarray) -> bytes:
    return drawing.png_bytes(pixels.astype(np.uint8))


def mask(rows_and_columns: tuple[slice, slice]) -> np.ndarray:
    result = np.zeros(SIZE, bool)
    result[rows_and_columns] = True
    return result


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB")).astype(int)


@pytest.fixture
def pair() -> RawExample:
    """A car, and a crowd of buses at the lower edge."""
    truth = Instances.stack([(mask(BOX), 1, False), (mask(np.s_[50:, :]), 2, True)], SIZE)
    return RawExample(png(np.full((*SIZE, 3), 100)), png(np.zeros(SIZE)), "00001", "dusk", truth)


def outputs(*found: tuple[tuple[slice, slice], int, float]) -> dict:
    masks = [mask(where) for where, _, _ in found]
    rows = [np.flatnonzero(each.any(axis=1)) for each in masks]
    columns = [np.flatnonzero(each.any(axis=0)) for each in masks]
    boxes = [(row[0], column[0], row[-1] + 1, column[-1] + 1) for row, column in zip(rows, columns, strict=True)]
    return {
        features.BOXES: np.array([*boxes, (0, 0, 0, 0)], np.float32),
        features.CLASSES: np.array([*(index for _, index, _ in found), -1]),
        features.SCORES: np.array([*(score for _, _, score in found), 0], np.float32),
        features.INSTANCE_PNG: np.array([*(png(255 * each) for each in masks), b""], object),
    }


def drawn(pair: RawExample, *found):
    (scored,) = score_pairs([pair], lambda images: [outputs(*found)], CLASS_MAP, things=("car", "bus"))
    return draw(pair, "best", scored, CLASS_MAP)


def test_a_frame_is_scored_by_average_precision_and_drawn_in_colours(pair):
    frame = drawn(pair, (BOX, 1, 0.9), (np.s_[50:, :40], 2, 0.8), (np.s_[:5, 60:], 1, 0.3))

    assert frame.score == frame.mask_ap == pytest.approx(1)
    assert frame.mean_iou is None
    times = 480 // SIZE[1]
    truth, prediction, error = (
        pixels(each)[::step, ::step]
        for each, step in ((frame.truth, times), (frame.prediction, times), (frame.error, 1))
    )
    assert np.ptp(truth[20, 25]) > 50
    assert np.ptp(prediction[20, 25]) > 50
    assert np.ptp(prediction[2, 75]) < 10  # too low a score
    # Neither the detection in the crowd nor the right one is an error.
    assert np.ptp(error[55, 20]) < 10
    assert np.ptp(error[25, 25]) < 10


def test_a_missed_instance_is_an_error(pair):
    frame = drawn(pair, (np.s_[35:45, 10:40], 1, 0.9))

    assert frame.score == 0.0
    error = pixels(frame.error)
    for row in (20, 40):
        assert error[row, 25] == pytest.approx(drawing.WRONG, abs=12)


def test_a_frame_without_detections_is_drawn(pair):
    assert drawn(pair).score == 0.0


@pytest.fixture
def report(pair) -> ReportData:
    families = ("mask_ap", "mask_ap50", "mask_ap75", "mask_ap_small", "mask_ap_medium", "mask_ap_large", "box_ap")
    scores = dict.fromkeys(families, 0.4) | {"mask_ap": 0.4321}
    scores |= {f"class_{name}/{thing}": 0.25 for name in families for thing in ("car", "bus")}
    scores |= {"class_mask_ap/car": 0.6543, "class_mask_ap_small/bus": None}
    return ReportData(
        model="mask_rcnn",
        class_map=CLASS_MAP,
        gate_split="test",
        verdict=Verdict(True, gates=(ThresholdCheck("mask_ap", "value", 0.1, 0.4321, True),)),
        scores=scores,
        baseline_scores=dict.fromkeys(scores, 0.2),
        sequences=(SequenceScore("dusk", mask_ap=0.3456, baseline_mask_ap=0.1111),),
        frames=(drawn(pair, (BOX, 1, 0.9)),),
        frames_scored=1,
        history=({"epoch": 1, "loss": 2.0, "val_loss": 2.5, "val_mask_ap50": 0.2468, "seconds": 3.0},),
        selection_split="val",
        selection_scores={"mask_ap": 0.5, "class_mask_ap/car": 0.7, "class_mask_ap/bus": None},
    )


def test_the_page_shows_average_precision_by_class_and_size(report):
    page = render(ReportData.from_json(report.to_json()))

    for text in ("Mask AP</dt>", "0.432", "0.654", "AP75</th>", "Small</th>", "0.346", "0.111", "Mask AP by split"):
        assert text in page
    assert "best validation mask AP50 0.247 after epoch 1" in page
    assert "On split val, which selected the epoch, mask AP is 0.500: a gap of +0.068" in page
    assert "by mask AP over the classes" in page
    for absent in ("IoU<", "Confusion", "Calibration", "Pixel accuracy", "mean IoU"):
        assert absent not in page


def test_a_report_of_masks_has_no_table_of_precision(report):
    scores = {"mean_iou": 0.5, "mean_dice": 0.6, "pixel_accuracy": 0.7, "class_iou/car": 0.5}
    kept = dataclasses.replace(report, scores=scores, verdict=Verdict(True), history=(), selection_scores={})

    page = render(dataclasses.replace(kept, sequences=(), frames=()))

    assert "Mask AP" not in page
    assert "Confusion" in page
