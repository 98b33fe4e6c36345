"""How much each class's pixels count in a loss, from how often they occur in the training split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from components.class_map import ClassMap
from components.errors import DataRejectedError

if TYPE_CHECKING:
    from trainer.decoded import SplitFacts


def class_weights(facts: SplitFacts, class_map: ClassMap, balance: float) -> np.ndarray:
    """Returns the weight of each class in the loss, float32 [num_classes].

    Median frequency balancing (Eigen and Fergus 2015, arXiv 1411.4734): a class's frequency is its
    share of the pixels of those images that hold it; its weight is the median of all frequencies
    over its own.

    Args:
        facts: pixel counts of the training split.
        class_map: names the ignored class, which weighs 0 and does not enter the median.
        balance: exponent of the weights; 0 weighs all classes alike, 1 is the source's formula.

    Raises:
        DataRejectedError: when every pixel is of the ignored class.
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
    """Raises DataRejectedError where every pixel of a split is of the ignored class: nothing to learn, or to score."""
    if not facts.class_pixels[list(class_map.scored_indices)].any():
        ignored = class_map.names[class_map.ignore_index or 0]
        raise DataRejectedError(
            f"split {split}: every pixel is {ignored}, the ignored class, expected pixels of other classes; correct "
            "the masks or the class map's ignore index"
        )
