"""A report with every part filled in, for the tests of this folder."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from components.class_map import ClassMap
from components.metrics.calibration import ReliabilityBin
from components.metrics.object_sizes import SizeScore
from components.metrics.threshold_check import ThresholdCheck
from components.report.data import Frame, Lineage, ReportData, SequenceScore, Timing, Verdict

CLASS_MAP = ClassMap(
    names=("sky", "road", "pedestrian", "traffic light / sign symbol", "void"),
    colors=((128, 128, 128), (128, 64, 128), (64, 64, 0), (192, 128, 128), (0, 0, 0)),
    ignore_index=4,
)


def picture(color: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (480, 360), color).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def frame(group: str, name: str, mean_iou: float) -> Frame:
    pictures = [picture(color) for color in ((90, 90, 90), (128, 64, 128), (128, 64, 120), (220, 38, 38))]
    return Frame(group, name, mean_iou, *pictures, sequence=name[:6])  # type: ignore[arg-type]


@pytest.fixture
def report() -> ReportData:
    """A blessed and pushed model beside a baseline; the traffic light is absent from truth and prediction."""
    scores = {
        "mean_iou": 0.6126,
        "mean_dice": 0.7345,
        "pixel_accuracy": 0.901,
        "frequency_weighted_iou": 0.8111,
        "mean_iou_with_void": 0.5222,
        "class_iou/sky": 0.9134,
        "class_iou/road": 0.7756,
        "class_iou/pedestrian": 0.1486,
        "class_iou/traffic light / sign symbol": float("nan"),
        "class_dice/sky": 0.9547,
        "class_dice/road": 0.8736,
        "class_dice/pedestrian": 0.2586,
        "class_dice/traffic light / sign symbol": None,
        "class_boundary_iou/sky": 0.5511,
        "class_boundary_iou/road": 0.4422,
        "class_boundary_iou/pedestrian": 0.2233,
        "class_boundary_iou/traffic light / sign symbol": None,
        "mean_boundary_iou": 0.4055,
        "expected_calibration_error": 0.0346,
    }
    baseline = {name: None if value is None else value - 0.0312 for name, value in scores.items()}
    epochs = [
        {
            "epoch": epoch,
            "loss": 2.0 / epoch,
            "mean_iou": 0.2 + 0.1 * epoch,
            "val_loss": 2.5 / epoch,
            "val_mean_iou": 0.15 + 0.1 * epoch,
            "learning_rate": 4e-4,
            "seconds": 61.0,
        }
        for epoch in (1, 2, 2, 3)
    ]
    return ReportData(
        model="fcn8",
        class_map=CLASS_MAP,
        gate_split="val",
        verdict=Verdict(
            blessed=True,
            pushed="/srv/serving/fcn8/1732183200",
            gates=(
                ThresholdCheck("mean_iou", "value", 0.4, 0.6126, True),
                ThresholdCheck("class_iou/pedestrian", "value", 0.1, 0.1486, True),
                ThresholdCheck("class_iou/road", "change", -0.05, 0.0312, True),
            ),
        ),
        scores=scores,
        baseline_scores=baseline,
        intervals={"class_iou/sky": (0.9012, 0.9226), "class_dice/sky": (0.9451, 0.9602)},
        change_intervals={"class_iou/sky": (-0.0123, 0.0747), "class_dice/sky": (0.0101, 0.0523)},
        confusion=((900, 90, 10, 0, 0), (40, 1960, 0, 0, 0), (0, 150, 50, 0, 0), (0, 0, 0, 0, 0), (7, 2, 0, 0, 0)),
        sequences=(SequenceScore("0016E5", 0.6333, 0.75, 0.91, 0.6), SequenceScore("Seq05VD", 0.4111)),
        frames=(
            frame("worst", "0016E5_07979", 0.211),
            frame("best", "0016E5_08151", 0.811),
            frame("random", "0016E5_08001", 0.511),
        ),
        frames_scored=101,
        history=tuple(epochs),
        class_shares={"train": {"sky": 0.17, "road": 0.31, "pedestrian": 0.006, "void": 0.04}, "val": {"sky": 0.2}},
        examples={"train": 1365, "val": 101},
        quarantined={"train": {"undecodable": 2, "mask missing": 1}},
        quarantine_rows=(
            {
                "split": "train",
                "name": "0006R0_f02100",
                "file": "train/0006R0_f02100.png",
                "reason": "undecodable",
                "found": "0 bytes",
                "expected": "a PNG or JPEG",
                "action": "write it again",
            },
        ),
        timings=(
            Timing("ImageMaskExampleGen", 0.2, "cached"),
            Timing("Trainer", 1103.0, "ran"),
            Timing("Evaluator", 22.0, "failed"),
        ),
        lineage=Lineage(
            run_id="2025-11-21T10-04-33",
            created="2025-11-21T10:23:05Z",
            data_hash="9f2c1e7a" * 8,
            code_hash="41d0c8ee" * 8,
            baseline="fcn8 of execution 12",
            configuration={"training": {"epochs": 3, "learning_rate": 0.0004}},
            packages={"tfx": "1.16.0"},
        ),
        reliability=(
            ReliabilityBin(pixels=0, hits=0, confidence=None, accuracy=None),
            ReliabilityBin(pixels=4000, hits=1000, confidence=0.4, accuracy=0.25),
            ReliabilityBin(pixels=12345, hits=9876, confidence=0.9123, accuracy=0.8),
        ),
        object_sizes={
            "small": SizeScore(210, 30_100, 0.1234),
            "medium": SizeScore(1_044, 200_000, 0.5678),
            "large": SizeScore(0, 0, None),
        },
        class_object_sizes={
            "sky": dict.fromkeys(("small", "medium", "large"), SizeScore(0, 0, None)),
            "pedestrian": {
                "small": SizeScore(207, 30_000, 0.1211),
                "medium": SizeScore(3, 2_000, 0.4567),
                "large": SizeScore(0, 0, None),
            },
        },
    )


@pytest.fixture
def minimal_report() -> ReportData:
    """The least a report can hold: no baseline, no history, no frames, no counts, no timings."""
    return ReportData(model="unet", class_map=CLASS_MAP, gate_split="test", verdict=Verdict(True), scores={})
