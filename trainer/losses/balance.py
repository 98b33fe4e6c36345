"""Class weights for the loss, from the class frequencies of the training split."""

from __future__ import annotations

import numpy as np

from components.class_map import ClassMap
from components.errors import DataRejectedError
from trainer.decoded import SplitFacts


def class_weights(facts: SplitFacts, class_map: ClassMap, balance: float) -> np.ndarray:
    """Returns the weight of each class in the loss, float32 [num_classes].

    Median frequency balancing (Eigen and Fergus 2015, arXiv 1411.4734): a class's frequency is its fraction of the
    pixels of images that contain it; its weight is the median of all frequencies divided by its own.

    Args:
        facts: pixel counts of the training split.
        class_map: defines the ignored class, which has weight 0 and is not part of the median.
        balance: exponent of the weights; 0 weights all classes equally, 1 is the paper's formula.

    Raises:
        DataRejectedError: if every pixel belongs to the ignored class.
    """
    check_scored("train", facts, class_map)
    weights = np.ones(class_map.num_classes, np.float64)
    scored = np.array(class_map.scored_indices)
    seen = scored[facts.class_pixels[scored] > 0]
    frequencies = facts.class_pixels[seen] / facts.present_pixels[seen]
    weights[seen] = (np.median(frequencies) / frequencies) ** balance
    if class_map.ignore_index is not None:
        weights[class_map.ignore_index] = 0.0
    return weights.astype(np.float32)


def check_scored(split: str, facts: SplitFacts, class_map: ClassMap) -> None:
    """Raises DataRejectedError if every pixel of a split belongs to the ignored class."""
    if not facts.class_pixels[list(class_map.scored_indices)].any():
        ignored = class_map.names[class_map.ignore_index or 0]
        raise DataRejectedError(
            f"split {split}: every pixel is {ignored}, the ignored class, expected pixels of other classes; correct "
            "the masks or the ignore index of the class map"
        )
