"""Compares the speed of segpipe's batch normalisation and optimizer with Keras'.

    python -m benchmarks.operations

Both run in turns, so other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

# The finest level of the preset's UNet: a batch of 4 windows of 192x256 with 16 channels.
FEATURES = (4, 192, 256, 16)
# About as many values as the variables of VGG16's last three blocks.
WEIGHTS = ((3, 3, 512, 512),) * 6
TURNS = 3


def main() -> None:
    """Prints the median milliseconds per step and the median ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20, help="steps per turn")
    steps = parser.parse_args().steps
    for name, ours, theirs in (("batch normalisation", *normalizations()), ("optimizer", *optimizers())):
        times = [(seconds(ours, steps), seconds(theirs, steps)) for _ in range(TURNS)]
        our, their = (1000 * statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in times)
        print(f"{name}: {our:.1f} ms, Keras {their:.1f} ms, ratio {ratio:.2f}")


def normalizations() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns a forward and backward pass of segpipe's layer, and of Keras', in bfloat16 with float32 weights."""
    import keras
    import tensorflow as tf

    from trainer.models.normalization import BatchNormalization

    features = tf.cast(tf.random.normal(FEATURES), tf.bfloat16)

    def step_of(layer: keras.layers.Layer) -> Callable[[], Any]:
        layer.build(FEATURES)

        @tf.function
        def step() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(features)
                outputs = layer(features, training=True)
            return tape.gradient(outputs, [features, *(weight.value for weight in layer.trainable_variables)])

        return step

    ours, theirs = BatchNormalization, keras.layers.BatchNormalization
    return step_of(ours(dtype="mixed_bfloat16")), step_of(theirs(dtype="mixed_bfloat16"))


def optimizers() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns an update of segpipe's AdamW, and of Keras', with weight decay."""
    import keras
    import tensorflow as tf

    from trainer.optimizer import OptimizerSettings, RecipeAdamW

    gradients = [tf.random.normal(shape) for shape in WEIGHTS]

    def step_of(optimizer: keras.optimizers.Optimizer) -> Callable[[], Any]:
        variables = [keras.Variable(tf.random.normal(shape)) for shape in WEIGHTS]
        optimizer.build(variables)
        return tf.function(lambda: optimizer.apply(gradients, variables))

    ours = RecipeAdamW(1e-4, OptimizerSettings(decay=1e-4))
    return step_of(ours), step_of(keras.optimizers.AdamW(1e-4, weight_decay=1e-4))


def seconds(step: Callable[[], Any], steps: int) -> float:
    """Returns the mean seconds of a step, after one warm-up step."""
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


if __name__ == "__main__":
    main()
