"""Callbacks of the training loop: progress records, and curves and images for TensorBoard."""

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

# Display names of the scores in a progress record.
_DISPLAY_NAMES = {
    "loss": "loss",
    "mean_iou": "mean IoU",
    "val_mean_iou": "validation mean IoU",
    "val_mask_ap50": "validation mask AP50",
}

# Seconds between two progress records of an epoch.
_PROGRESS_INTERVAL = 1.0


class Progress:
    """Reports steps and epochs to the logger `segpipe.progress`."""

    def __init__(self, epochs: int, steps: int, resumed_from: int | None) -> None:
        self._epochs = epochs
        self._steps = steps
        self._resumed_from = resumed_from
        self._reported = -math.inf

    def step(self, epoch: int, step: int, scores: Callable[[], dict[str, float]]) -> None:
        """Reports a step, 1-based, unless the last report is too recent. Only a report computes the scores."""
        if time.monotonic() - self._reported >= _PROGRESS_INTERVAL:
            self._reported = time.monotonic()
            self._report(epoch, step, scores(), epoch_ended=False)

    def epoch(self, entry: dict[str, Any], predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Reports a finished epoch, given its history entry."""
        self._report(entry["epoch"], self._steps, entry, epoch_ended=True)

    def _report(self, epoch: int, step: int, values: dict[str, Any], epoch_ended: bool) -> None:
        scores = {name: finite_or_none(values.get(name)) for name in _DISPLAY_NAMES}
        text = ", ".join(f"{_DISPLAY_NAMES[name]} {value:.3f}" for name, value in scores.items() if value is not None)
        record = {
            "component": "Trainer",
            "epoch": epoch,
            "epochs": self._epochs,
            "step": step,
            "steps": self._steps,
            **scores,
            "epoch_ended": epoch_ended,
            "resumed_from": self._resumed_from,
        }
        message = f"epoch {epoch}/{self._epochs}, step {step}/{self._steps}: {text}"
        PROGRESS.info(message, extra={"progress": record})


class TensorBoardLog:
    """Writes curves after every epoch, and example images with truth and prediction after every validation.

    Keras' callback writes no masks, and it does not know the epochs before a resumption.
    """

    def __init__(
        self,
        directory: str,
        class_map: ClassMap,
        frames: tuple[np.ndarray, np.ndarray],
        history: Sequence[dict[str, Any]],
    ) -> None:
        """Opens the logs and writes the curves of the epochs before a resumption again."""
        self._class_map = class_map
        self._images, self._masks = frames
        self._train = tf.summary.create_file_writer(files.join(directory, "train"))
        self._validation = tf.summary.create_file_writer(files.join(directory, "validation"))
        for entry in history:
            self._write_curves(entry)

    def step(self, epoch: int, step: int, scores: Callable[[], dict[str, float]]) -> None:
        """Writes nothing."""

    def epoch(self, entry: dict[str, Any], predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Writes the history entry of an epoch and, if it was validated, predictions for the example images."""
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
    """Places image, truth and prediction side by side, in display colours.

    Takes images, RGB, 0 to 255, [B, H, W, 3], and class indices [B, H, W]; returns uint8 [B, H, 3 W, 3].
    """
    parts = [images.astype(np.uint8), class_map.colorize(masks), class_map.colorize(predictions)]
    return np.concatenate(parts, axis=2)


def finite_or_none(value: float | None) -> float | None:
    """Returns a number as a float; None for NaN and infinity, which JSON cannot represent."""
    return float(value) if value is not None and math.isfinite(value) else None
