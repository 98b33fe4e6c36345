"""What happens beside the arithmetic of `fit`: progress, checkpoints, TensorBoard, and a stop at nonsense."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components import files
from components.class_map import ClassMap
from components.errors import SegpipeError
from trainer.checkpoints import Checkpoints, State

PROGRESS = logging.getLogger("segpipe.progress")

# What a person calls the figures that a progress record carries.
_WORDS = {"loss": "loss", "mean_iou": "mean IoU", "val_mean_iou": "validation mean IoU"}

# Seconds between two progress records of one epoch.
PROGRESS_INTERVAL = 1.0


class EpochRecorder(keras.callbacks.Callback):
    """Turns each finished epoch into a line of history and a checkpoint."""

    def __init__(self, checkpoints: Checkpoints, state: State) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self.state = state

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the epoch's clock."""
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes history and checkpoint."""
        logs = logs or {}
        entry = {
            "epoch": epoch + 1,
            **{
                name: finite_or_none(logs.get(name, "nan")) for name in ("loss", "mean_iou", "val_loss", "val_mean_iou")
            },
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(time.monotonic() - self._began, 3),
        }
        self.state = self._checkpoints.save(self.model, self.state, entry, float(logs.get("val_mean_iou", "nan")))


class FiniteLoss(keras.callbacks.Callback):
    """Stops a training whose loss is no number any more."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises SegpipeError where the epoch's mean loss is infinite or not a number."""
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise SegpipeError(
                f"Trainer: the loss is {loss} at step {int(self.model.optimizer.iterations)}, expected a finite "
                "number; lower training.learning_rate, or set training.precision to float32"
            )


class Progress(keras.callbacks.Callback):
    """Reports steps and epochs to the logger `segpipe.progress`."""

    def __init__(self, epochs: int, steps: int, resumed_from: int | None) -> None:
        super().__init__()
        self._epochs = epochs
        self._steps = steps
        self._resumed_from = resumed_from
        self._epoch = 0
        self._reported = -math.inf

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports the step, unless the last report is too recent."""
        if time.monotonic() - self._reported >= PROGRESS_INTERVAL:
            self._reported = time.monotonic()
            self._report(batch + 1, logs or {}, epoch_ended=False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports the epoch with its validation score."""
        self._report(self._steps, logs or {}, epoch_ended=True)

    def _report(self, step: int, logs: dict[str, Any], epoch_ended: bool) -> None:
        scores = {name: finite_or_none(logs[name]) if name in logs else None for name in _WORDS}
        figures = ", ".join(f"{_WORDS[name]} {value:.3f}" for name, value in scores.items() if value is not None)
        sentence = f"epoch {self._epoch}/{self._epochs}, step {step}/{self._steps}: {figures}"
        place = {"epoch": self._epoch, "epochs": self._epochs, "step": step, "steps": self._steps}
        record = {
            "component": "Trainer",
            **place,
            **scores,
            "epoch_ended": epoch_ended,
            "resumed_from": self._resumed_from,
        }
        PROGRESS.info(sentence, extra={"progress": record})


class TensorBoardLog(keras.callbacks.Callback):
    """Writes curves, and image, truth and prediction of some validation frames, after every epoch.

    Keras' own callback knows neither masks nor a resumed training's earlier epochs.
    """

    def __init__(
        self, directory: str, class_map: ClassMap, frames: tuple[np.ndarray, np.ndarray], recorder: EpochRecorder
    ) -> None:
        super().__init__()
        self._directory = directory
        self._class_map = class_map
        self._images, self._masks = frames
        self._recorder = recorder

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the logs and repeats the curves of the epochs before a resumption."""
        self._train = tf.summary.create_file_writer(files.join(self._directory, "train"))
        self._validation = tf.summary.create_file_writer(files.join(self._directory, "validation"))
        for entry in self._recorder.state.history:
            self._write_curves(entry)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the epoch that the recorder has just finished."""
        self._write_curves(self._recorder.state.history[-1])
        logits = self.model.predict_on_batch(self._images)
        panels = example_panels(self._images, self._masks, np.argmax(logits, axis=-1), self._class_map)
        with self._validation.as_default(step=epoch + 1):
            tf.summary.image("image, truth, prediction", panels, max_outputs=len(panels))
        self._train.flush()
        self._validation.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the logs."""
        self._train.close()
        self._validation.close()

    def _write_curves(self, entry: dict[str, Any]) -> None:
        curves = (
            (self._train, "", ("loss", "mean_iou", "learning_rate")),
            (self._validation, "val_", ("loss", "mean_iou")),
        )
        for writer, prefix, names in curves:
            with writer.as_default(step=entry["epoch"]):
                for name in names:
                    if entry[prefix + name] is not None:
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


def finite_or_none(value: Any) -> float | None:
    """Returns a number as a float, or None where JSON has no word for it."""
    number = float(value)
    return number if math.isfinite(number) else None
