"""Trains one float16 step on two devices, with gradients that overflow only on the second, and prints JSON."""

import json

import keras
import numpy as np
import tensorflow as tf
import training_toy as toy

from trainer import deep_supervision, optimizer, precision
from trainer.config import ModelSettings, TrainingSettings
from trainer.learner import Learner
from trainer.models import registry
from trainer.tasks.semantic import SemanticObjective


def overflowing(masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns a loss that is infinite on every device except the first."""
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.reduce_mean(logits) * tf.where(tf.equal(replica, 0), 1.0, float("inf"))


def main() -> None:
    """Prints whether the weights of each device are unchanged, and the loss scale before and after."""
    strategy = toy.mirrored(2)
    with precision.policy("mixed_float16"), strategy.scope():
        model = registry.build(ModelSettings(name="unet", base_filters=4, dropout=0), None, 4)
        scaled = keras.optimizers.LossScaleOptimizer(optimizer.build(TrainingSettings(), 1e-2, model, ()))
        supervised = deep_supervision.attach(model, (), 4)
        learner = Learner(SemanticObjective(model, supervised, overflowing, toy.CLASS_MAP), scaled, strategy)
    rng = np.random.default_rng(0)
    images, masks = zip(*(toy.pair(rng) for _ in range(4)), strict=True)
    values = np.stack(images).astype(np.float32), np.stack(masks), np.zeros((4, 2), np.int64)
    pairs = tf.data.Dataset.from_tensor_slices(values).batch(4)

    def weights() -> list[list[np.ndarray]]:
        copies = [strategy.experimental_local_results(weight.value) for weight in model.trainable_variables]
        return [[copy.numpy() for copy in of_device] for of_device in zip(*copies, strict=True)]

    def scale() -> float:
        return float(strategy.experimental_local_results(scaled.dynamic_scale.value)[0])

    before, scale_before = weights(), scale()
    learner.train(next(iter(strategy.experimental_distribute_dataset(pairs))))
    same = [
        all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))
        for old, new in zip(before, weights(), strict=True)
    ]
    print(json.dumps({"same": same, "scales": [scale_before, scale()]}))


if __name__ == "__main__":
    main()
