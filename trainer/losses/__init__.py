"""The training loss: a weighted sum of losses on logits, one file each.

Every loss is computed over the global batch and equal on all its devices: sums over pixels or images go through
`distribution.total`. The ignored class and padding (see `trainer.padding`) are excluded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from components.class_map import ClassMap
from trainer.config import TrainingSettings
from trainer.decoded import SplitFacts
from trainer.losses.balance import class_weights
from trainer.losses.cross_entropy import CrossEntropy, Focal
from trainer.losses.dice import Dice
from trainer.losses.lovasz import Lovasz

# From one device's masks, class indices or padding [B, H, W], and logits, float32 [B, H, W, num_classes], to the loss
# of the global batch, float32 [].
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Every second row and column, because sorting all pixels takes a sixth of a step of FCN-8.
LOVASZ_STRIDE = 2


class WeightedSum:
    """A weighted sum of losses."""

    def __init__(self, parts: Sequence[tuple[float, Loss]]) -> None:
        self._parts = tuple(parts)

    def __call__(self, masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss, float32 [], of class indices [B, H, W] and logits [B, H, W, num_classes]."""
        return tf.add_n([weight * loss(masks, logits) for weight, loss in self._parts])


def build(settings: TrainingSettings, facts: SplitFacts, class_map: ClassMap) -> Loss:
    """Returns the weighted sum of losses from the settings.

    Args:
        settings: `class_balance`, and `cross_entropy`, `focal_weight`, `dice_weight` and `lovasz_weight`.
        facts: pixel counts of the training split.
        class_map: defines the ignored class.

    Raises:
        DataRejectedError: if every pixel of the training split belongs to the ignored class.
    """
    weights = class_weights(facts, class_map, settings.class_balance)
    parts = (
        (settings.cross_entropy, CrossEntropy(weights)),
        (settings.focal_weight, Focal(weights)),
        (settings.dice_weight, Dice(class_map)),
        (settings.lovasz_weight, Lovasz(class_map, LOVASZ_STRIDE)),
    )
    return WeightedSum([(weight, loss) for weight, loss in parts if weight])
