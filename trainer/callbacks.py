"""What a training tells while it runs: progress for people, curves and pictures for TensorBoard."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from components import files
from components.class_map import ClassMap

PROGRESS = logging.getLogger("segpipe.progress")

# What a person calls the figures that a progress record carries.
_WORDS = {
    "loss": "loss",
    "mean_iou": "mean IoU",
    "val_mean_iou": "validation mean IoU",
    "val_mask_ap50": "validation mask AP50",
}

# Seconds between two progress records of one epoch.
PROGRESS_INTERVAL = 1.0


class Progress:
    """Reports steps and epochs to the logger `segpipe.progress`."""

    def __init__(self, epochs: int, steps: int, resumed_from: int | None) -> None:
        self._epochs = epochs
        self._steps = steps
        self._resumed_from = resumed_from
        self._reported = -math.inf

    def step(self, epoch: int, step: int, scores: Callable[[], dict[str, float]]) -> None:
        """Reports a step, 1-based, unless the last report is too recent; only then are the scores computed."""
        if time.monotonic() - self._reported >= PROGRESS_INTERVAL:
            self._reported = time.monotonic()
            self._report(epoch, step, scores(), epoch_ended=False)

    def epoch(self, entry: dict[str, Any], predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Reports a finished epoch, a line of history."""
        self._report(entry["epoch"], self._steps, entry, epoch_ended=True)

    def _report(self, epoch: int, step: int, figures: dict[str, Any], epoch_ended: bool) -> None:
        scores = {name: finite_or_none(figures.get(name)) for name in _WORDS}
        told = ", ".join(f"{_WORDS[name]} {value:.3f}" for name, value in scores.items() if value is not None)
        sentence = f"epoch {epoch}/{self._epochs}, step {step}/{self._steps}: {told}"
        place = {"epoch": epoch, "epochs": self._epochs, "step": step, "steps": self._steps}
        record = {
            "component": "Trainer",
            **place,
            **scores,
            "epoch_ended": epoch_ended,
            "resumed_from": self._resumed_from,
        }
        PROGRESS.info(sentence, extra={"progress": record})


class TensorBoardLog:
    """Writes curves after every epoch, and image, truth and prediction of some frames after every validation.

    Keras' own callback knows neither masks nor a resumed training's earlier epochs.
    """

    def __init__(
        self,
        directory: str,
        class_map: ClassMap,
        frames: tuple[np.ndarray, np.ndarray],
        history: Sequence[dict[str, Any]],
    ) -> None:
        """Opens the logs and repeats the curves of the epochs before a resumption."""
        self._class_map = class_map
        self._images, self._masks = frames
        self._train = tf.summary.create_file_writer(files.join(directory, "train"))
        self._validation = tf.summary.create_file_writer(files.join(directory, "validation"))
        for entry in history:
            self._write_curves(entry)

    def step(self, epoch: int, step: int, scores: Callable[[], dict[str, float]]) -> None:
        """Writes nothing."""

    def epoch(self, entry: dict[str, Any], predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Writes a finished epoch: its line of history and, if it was validated, predictions of the frames."""
        self._write_curves(entry)
        if entry["val_loss"] is None:
            return
        panels = example_panels(self._images, self._masks, predict(self._images), self._class_map)
        with self._validation.as_default(step=entry["epoch"]):
            tf.summary.image("image, truth, prediction", panels, max_outputs=len(panels))
        self._train.flush()
        self._validation.flush()

    def close(self) -> None:
        """Closes the logs."""
        self._train.close()
        self._validation.close()

    def _write_curves(self, entry: dict[str, Any]) -> None:
        curves = (
            (self._train, "", ("loss", "mean_iou", "learning_rate")),
            (self._validation, "val_", ("loss", "mean_iou", "mask_ap50")),
        )
        for writer, prefix, names in curves:
            with writer.as_default(step=entry["epoch"]):
                for name in names:
                    if entry.get(prefix + name) is not None:
                        tf.summary.scalar(name, entry[prefix + name])


def example_panels(images: np.ndarray, masks: np.ndarray, predictions: np.ndarray, class_map: ClassMap) -> np.ndarray:
    """Lays image, truth and prediction side by side, in display colours.

    Args:
        images: RGB, 0 to 255, [B, H, W, 3].
        masks: class indices [B, H, W].
        predictions: class indices [B, H, W].
        class_map: gives the colours.

    Returns:
        uint8 [B, H, 3 W, 3].
    """
    parts = [images.astype(np.uint8), class_map.colorize(masks), class_map.colorize(predictions)]
    return np.concatenate(parts, axis=2)


def finite_or_none(value: float | None) -> float | None:
    """Returns a number as a float, or None where JSON has no word for it."""
    return float(value) if value is not None and math.isfinite(value) else None
