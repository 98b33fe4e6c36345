"""Paints the result of a model over its image, or as a separate layer."""

from __future__ import annotations

import numpy as np

from components import drawing
from serving.client.results import Answer, InstanceSegmentation


def labels(answer: InstanceSegmentation) -> list[str]:
    """Returns the label of each instance: name and score."""
    return [f"{name.replace('_', ' ')} {score:.2f}" for name, score in zip(answer.names, answer.scores, strict=True)]


def paint(image: np.ndarray, answer: Answer, opacity: float = 0.5) -> np.ndarray:
    """Draws the colours of classes, or instances with boxes and labels, over an image, uint8 [H, W, 3].

    The opacity of the colours is 0 to 1.
    """
    if isinstance(answer, InstanceSegmentation):
        return drawing.instances(image, answer.masks, labels(answer), opacity)
    return drawing.overlay(image, answer.class_map, answer.legend, opacity)


def layer(answer: Answer, size: tuple[int, int]) -> np.ndarray:
    """Returns only the colours, uint8 [H, W, 4], for an image of height and width `size`.

    Ignored pixels, and pixels outside of instances, are transparent.
    """
    if isinstance(answer, InstanceSegmentation):
        painted = paint(np.zeros((*size, 3), np.uint8), answer, opacity=1)
        opaque = painted.any(axis=-1)
    else:
        painted = answer.legend.colorize(answer.class_map)
        opaque = answer.class_map != answer.legend.ignore_index
    return np.dstack([painted, (opaque * np.uint8(255)).astype(np.uint8)])
