"""The same step of Keras' own batch normalisation and optimizer over that of ours.

    python -m benchmarks.operations

The two take turns, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

# The finest level of the preset's UNet: a batch of 4 windows of 192x256 with 16 channels.
FEATURES = (4, 192, 256, 16)
# The variables of VGG16's last three blocks hold about as many numbers.
WEIGHTS = ((3, 3, 512, 512),) * 6
TURNS = 3


def main() -> None:
    """Prints medians of milliseconds a step, and of the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20, help="steps a turn")
    steps = parser.parse_args().steps
    for name, ours, theirs in (("batch normalisation", *normalizations()), ("optimizer", *optimizers())):
        times = [(seconds(ours, steps), seconds(theirs, steps)) for _ in range(TURNS)]
        our, their = (1000 * statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in times)
        print(f"{name}: {our:.1f} ms, Keras {their:.1f} ms, ratio {ratio:.2f}")


def normalizations() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns a training step of our layer and of Keras', output and gradients, in bfloat16 with float32 weights."""
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
    """Returns a step of our AdamW and of Keras', with weight decay."""
    import keras
    import tensorflow as tf

    from trainer.optimizer import Recipe, RecipeAdamW

    gradients = [tf.random.normal(shape) for shape in WEIGHTS]

    def step_of(optimizer: keras.optimizers.Optimizer) -> Callable[[], Any]:
        variables = [keras.Variable(tf.random.normal(shape)) for shape in WEIGHTS]
        optimizer.build(variables)
        return tf.function(lambda: optimizer.apply(gradients, variables))

    return step_of(RecipeAdamW(1e-4, Recipe(decay=1e-4))), step_of(keras.optimizers.AdamW(1e-4, weight_decay=1e-4))


def seconds(step: Callable[[], Any], steps: int) -> float:
    """Times so many steps, after one that is not counted; returns seconds a step."""
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


if __name__ == "__main__":
    main()
