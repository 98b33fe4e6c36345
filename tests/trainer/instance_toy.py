"""A tiny data set of drawn rectangles with instance masks, as Transform writes it."""

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np
import training_toy as toy

from components import features
from trainer.config import ModelSettings, TrainingSettings
from trainer.models import encoders
from trainer.training import TrainingJob

SIZE = (64, 96)
# Class indices of `toy.CLASS_MAP`: box and stripe.
THINGS = (1, 2)
MODEL = ModelSettings(name="mask_rcnn", encoder="vgg16", pyramid_filters=32, proposals=50, max_instances=10)


def small_encoder(include_top: bool, weights: None, input_tensor: Any) -> keras.Model:
    """Builds one convolution for each block of VGG16, because a real encoder takes long to compile."""
    x = input_tensor
    for block in range(1, 6):
        x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name=f"block{block}_pool")(x)
    return keras.Model(input_tensor, x)


# Replaces VGG16.
ENCODER = dataclasses.replace(
    encoders.VGG16, application=small_encoder, blocks=tuple((f"block{block}_pool",) for block in range(1, 6))
)


def example(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws a box and a stripe: image, uint8 [H, W, 3], and labels, uint8 [2, H, W]."""
    labels = np.zeros((2, *SIZE), np.uint8)
    top, left = rng.integers(4, 24, 2)
    labels[0, top : top + 28, left : left + 28] = 1
    column, row = rng.integers(56, 78), rng.integers(4, 16)
    labels[1, row : row + 40, column : column + 12] = 2
    image = toy.CLASS_MAP.palette[labels.max(axis=0)] + rng.normal(0, 10, (*SIZE, 3))
    return image.clip(0, 255).astype(np.uint8), labels


def stack(labels: np.ndarray) -> bytes:
    """Encodes masks, uint8 [N, H, W], as `features.TRANSFORMED_INSTANCES`."""
    return toy.png(labels.reshape(-1, labels.shape[-1])) if len(labels) else b""


def write_records(path: pathlib.Path, examples: list[tuple[np.ndarray, np.ndarray]]) -> str:
    return toy.write_examples(
        path,
        (
            {features.TRANSFORMED_IMAGE: toy.png(image), features.TRANSFORMED_INSTANCES: stack(labels)}
            for image, labels in examples
        ),
    )


def job(directory: pathlib.Path, examples: int = 4, **training: object) -> TrainingJob:
    """Writes some examples and returns a job that trains and validates on them."""
    rng = np.random.default_rng(0)
    files = [write_records(directory / "instances.gz", [example(rng) for _ in range(examples)])]
    recipe = {"epochs": 2, "batch_size": 2, "learning_rate": 2e-3, "precision": "float32", "proposals": 32, **training}
    return TrainingJob(
        model=MODEL,
        training=TrainingSettings(**recipe),
        class_map=toy.CLASS_MAP,
        input_size=SIZE,
        train_files=files,
        eval_files=files,
        seed=1,
        log_dir=str(directory / "logs"),
        things=THINGS,
    )
