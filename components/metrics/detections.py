"""The detections of one image, read from the outputs of a model's signature `evaluation`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from components import features
from components.metrics.confusion import decode_instance


@dataclasses.dataclass(frozen=True)
class Detections:
    """The instances that a model found in an image.

    Attributes:
        masks: bool [N, H, W].
        boxes: float [N, 4], (y_min, x_min, y_max, x_max) in pixels, exclusive maximum.
        classes: class indices, int64 [N].
        scores: float [N].
    """

    masks: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any], size: tuple[int, ...]) -> Detections:
        """Reads the outputs of one image by name; `components/features.py` describes them.

        Args:
            outputs: the outputs, padded to the same number for every image.
            size: (height, width) of the image.

        Raises:
            DataRejectedError: a mask is not an 8-bit grey PNG.
        """
        classes = np.asarray(outputs[features.CLASSES]).ravel().astype(np.int64)
        places = np.flatnonzero(classes >= 0)
        pngs = np.asarray(outputs[features.INSTANCE_PNG], dtype=object).ravel()[places]
        return cls(
            masks=np.stack([decode_instance(png) for png in pngs]) if len(pngs) else np.zeros((0, *size), bool),
            boxes=np.asarray(outputs[features.BOXES], np.float64).reshape(-1, 4)[places],
            classes=classes[places],
            scores=np.asarray(outputs[features.SCORES], np.float64).ravel()[places],
        )
