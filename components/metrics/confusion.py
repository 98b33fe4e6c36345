"""Count pixels by true and predicted class: every score of masks follows from this matrix.

The module does not import TensorFlow, so the command line can use it too.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from components.errors import DataRejectedError


def decode_mask(png: bytes) -> np.ndarray:
    """Decodes a mask, an 8-bit grey PNG of class indices, to uint8 [H, W].

    Raises:
        DataRejectedError: the bytes are not an image, are cut short, or are not 8-bit grey.
    """
    return _decode_grey(png, "mask", "class indices")


def decode_confidence(png: bytes) -> np.ndarray:
    """Decodes the probability of each pixel's class, an 8-bit grey PNG, 0 to 255 for 0 to 1, to uint8 [H, W].

    Raises:
        DataRejectedError: the bytes are not an image, are cut short, or are not 8-bit grey.
    """
    return _decode_grey(png, "confidence", "probabilities, 0 to 255 for 0 to 1")


def decode_instance(png: bytes) -> np.ndarray:
    """Decodes the mask of an instance, an 8-bit grey PNG of 0 and 255, to bool [H, W].

    Raises:
        DataRejectedError: the bytes are not an image, are cut short, or are not 8-bit grey.
    """
    return _decode_grey(png, "mask of an instance", "0 and 255") > 127


def _decode_grey(png: bytes, what: str, content: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(png)) as image:
            if image.mode != "L":
                raise DataRejectedError(
                    f"{what}: found an image of mode {image.mode}, expected 8-bit grey (mode L) of {content}"
                )
            return np.asarray(image, dtype=np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataRejectedError(
            f"{what}: found {len(png)} bytes that do not decode ({error}), expected a PNG of {content}; "
            f"write the {what} again"
        ) from error


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts the pixels of each pair of true and predicted class.

    Args:
        truth: class indices, integer [H, W].
        prediction: class indices, integer, same shape as `truth`.
        num_classes: number of classes, including the ignored class.

    Returns:
        Pixel counts, int64 [num_classes, num_classes]; rows are the truth, columns the prediction.

    Raises:
        ValueError: the shapes differ, or an index is not one of 0 to `num_classes` - 1.
    """
    if truth.shape != prediction.shape:
        raise ValueError(
            f"confusion matrix: prediction has shape {prediction.shape}, truth {truth.shape}; "
            "the model must return each mask at its image's own size"
        )
    for what, indices in (("truth", truth), ("prediction", prediction)):
        if indices.size and not 0 <= indices.min() <= indices.max() < num_classes:
            raise ValueError(
                f"confusion matrix: {what} holds class indices {indices.min()} to {indices.max()}, "
                f"expected 0 to {num_classes - 1}; use the class map that the data was written with"
            )
    pairs = truth.ravel().astype(np.intp) * num_classes + prediction.ravel()
    counts = np.bincount(pairs, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)
