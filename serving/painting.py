"""Paints what a model answers: over its image, or as a layer of its own."""

from __future__ import annotations

import numpy as np

from components import drawing
from serving.client.results import Answer, InstanceSegmentation


def labels(answer: InstanceSegmentation) -> list[str]:
    """Returns the text at each instance: name and score."""
    return [f"{name.replace('_', ' ')} {score:.2f}" for name, score in zip(answer.names, answer.scores, strict=True)]


def paint(image: np.ndarray, answer: Answer, opacity: float = 0.5) -> np.ndarray:
    """Lays the colours of classes, or of instances with boxes and labels, over an image.

    Args:
        image: uint8 [H, W, 3].
        answer: what a model says of it.
        opacity: fraction of the colours, 0 to 1.

    Returns:
        uint8 [H, W, 3].
    """
    if isinstance(answer, InstanceSegmentation):
        return drawing.instances(image, answer.masks, labels(answer), opacity)
    return drawing.overlay(image, answer.class_map, answer.legend, opacity)


def layer(answer: Answer, size: tuple[int, int]) -> np.ndarray:
    """Returns the colours alone, uint8 [H, W, 4], transparent where there is no instance or the class is ignored.

    Args:
        answer: what a model says of an image.
        size: height and width of the image.
    """
    if isinstance(answer, InstanceSegmentation):
        painted = paint(np.zeros((*size, 3), np.uint8), answer, opacity=1)
        opaque = painted.any(axis=-1)
    else:
        painted = answer.legend.colorize(answer.class_map)
        opaque = answer.class_map != answer.legend.ignore_index
    return np.dstack([painted, (opaque * np.uint8(255)).astype(np.uint8)])
