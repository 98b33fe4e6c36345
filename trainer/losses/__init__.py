"""What a training minimises: a weighted sum of losses on logits, each of them one small file.

Every loss is that of the global batch, the same on every device that shares it: whatever is summed
over pixels or images goes through `distribution.total`. The ignored class counts in none, nor does
padding (see `padding`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from components.class_map import ClassMap
from trainer.config import TrainingSettings
from trainer.losses.balance import class_weights
from trainer.losses.cross_entropy import CrossEntropy, Focal
from trainer.losses.dice import Dice
from trainer.losses.lovasz import Lovasz

if TYPE_CHECKING:
    from trainer.decoded import SplitFacts

# Masks, class indices or padding [B, H, W], and logits, float32 [B, H, W, num_classes], of one device -> the
# loss of the global batch, float32 [].
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Of every second row and column: sorting all of them takes a sixth of a step of FCN-8.
LOVASZ_STRIDE = 2


class WeightedSum:
    """Sum of losses, each times its weight."""

    def __init__(self, parts: Sequence[tuple[float, Loss]]) -> None:
        self._parts = tuple(parts)

    def __call__(self, masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss, float32 [], of class indices [B, H, W] and logits [B, H, W, num_classes]."""
        return tf.add_n([weight * loss(masks, logits) for weight, loss in self._parts])


def build(settings: TrainingSettings, facts: SplitFacts, class_map: ClassMap) -> Loss:
    """Returns the loss that the settings ask for.

    Args:
        settings: `class_balance`, and `cross_entropy`, `focal_weight`, `dice_weight` and `lovasz_weight`.
        facts: pixel counts of the training split.
        class_map: names the ignored class.

    Raises:
        DataRejectedError: when every pixel of the training split is of the ignored class.
    """
    weights = class_weights(facts, class_map, settings.class_balance)
    parts = (
        (settings.cross_entropy, CrossEntropy(weights)),
        (settings.focal_weight, Focal(weights)),
        (settings.dice_weight, Dice(class_map)),
        (settings.lovasz_weight, Lovasz(class_map, LOVASZ_STRIDE)),
    )
    return WeightedSum([(weight, loss) for weight, loss in parts if weight])
