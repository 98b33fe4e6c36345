"""AdamW with a separate learning rate for the encoder, and a moving average of the weights.

Both are part of the optimizer, so they work on every device of a strategy and under loss scaling, and checkpoints
include them with the optimizer's state.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from trainer.config import TrainingSettings

# Variables without weight decay.
_UNDECAYED = ("bias", "gamma", "beta")

# Steps over which the momentum of the average grows, so that the initial weights are forgotten fast.
_AVERAGE_WARMUP = 10


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Settings for groups of variables.

    Attributes:
        decay: decoupled weight decay.
        encoder_lr_multiplier: factor on the learning rate, and so on the decay, of the encoder's variables.
        encoder: paths of the encoder's variables.
        momentum: of the moving average; 0 disables it.
        statistics: untrained variables of the network to average too.
    """

    decay: float = 0.0
    encoder_lr_multiplier: float = 1.0
    encoder: frozenset[str] = frozenset()
    momentum: float = 0.0
    statistics: tuple[keras.Variable, ...] = ()


class RecipeAdamW(keras.optimizers.Adam):
    """AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101) with the settings of a recipe.

    After each step, the average is a = m a + (1 - m) w, with m smaller than the recipe's momentum in the first steps.
    """

    def __init__(self, learning_rate: Any, recipe: OptimizerSettings, name: str = "adamw") -> None:
        super().__init__(learning_rate, name=name)
        self._recipe = recipe

    def build(self, variables: Sequence[Any]) -> None:
        """Creates moments and averages for the network's trainable variables; a second call does nothing."""
        if self.built:
            return
        super().build(variables)
        recipe = self._recipe
        self._rates = [recipe.encoder_lr_multiplier if v.path in recipe.encoder else 1.0 for v in variables]
        self._decays = [0.0 if v.name in _UNDECAYED else recipe.decay for v in variables]
        if recipe.momentum:
            self._averages = [self.add_variable_from_reference(v, name="average") for v in variables]
            # All devices hold the same statistics, so the first one's value is enough.
            self._averaged_statistics = [
                self.add_variable(v.shape, dtype=v.dtype, aggregation="only_first_replica", name="average")
                for v in recipe.statistics
            ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable, and then its average."""
        # Documented by Keras for custom optimizers. `variable` is a backend variable without a path here, under a
        # strategy one of several copies.
        index = self._get_variable_index(variable)
        learning_rate = ops.cast(learning_rate, variable.dtype) * self._rates[index]
        if self._decays[index]:
            self.assign_sub(variable, variable * (self._decays[index] * learning_rate))
        step = ops.cast(self.iterations + 1, variable.dtype)
        # TensorFlow's fused operation reads the variable and its moments once. Keras' step takes a dozen operations,
        # each of which writes a tensor as large as the variable.
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=ops.power(ops.cast(self.beta_1, variable.dtype), step),
            beta2_power=ops.power(ops.cast(self.beta_2, variable.dtype), step),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=ops.cast(gradient, variable.dtype),
        )
        if self._recipe.momentum:
            average = self._averages[index]
            self.assign_add(average, (variable - average) * ops.cast(self._newest_fraction(), variable.dtype))

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Runs one step, then updates the moving averages of the batch normalisation's statistics."""
        fraction = self._newest_fraction()
        super().apply(grads, trainable_variables)
        if self._recipe.momentum:
            for variable, average in zip(self._recipe.statistics, self._averaged_statistics, strict=True):
                average.assign(average + (variable - average) * ops.cast(fraction, variable.dtype))

    def swap_averages(self) -> None:
        """Swaps the network's variables with their averages, on all devices; a second call reverts that."""
        if not self._recipe.momentum:
            return
        trained = zip(self._trainable_variables, self._averages, strict=True)
        for variable, average in (*trained, *zip(self._recipe.statistics, self._averaged_statistics, strict=True)):
            newest = tf.identity(tf.convert_to_tensor(variable))
            variable.assign(tf.convert_to_tensor(average))
            average.assign(newest)

    def _newest_fraction(self) -> Any:
        """Returns the weight of the newest values in the average: 1 at the first step, falling to 1 - momentum."""
        step = ops.cast(self.iterations, "float32")
        return 1 - ops.minimum(self._recipe.momentum, step / (step + _AVERAGE_WARMUP))


def build(
    settings: TrainingSettings, rate: Any, model: keras.Model, encoder_blocks: Sequence[Sequence[str]]
) -> RecipeAdamW:
    """Returns an unbuilt optimizer for a network.

    Args:
        settings: `weight_decay`, `encoder_lr_multiplier` and `ema`.
        rate: learning rate, or a schedule of it.
        model: the network.
        encoder_blocks: names of the encoder's layers with weights, block by block; empty if the network has no
            separate encoder.
    """
    encoder = (model.get_layer(name) for block in encoder_blocks for name in block)
    recipe = OptimizerSettings(
        decay=settings.weight_decay,
        encoder_lr_multiplier=settings.encoder_lr_multiplier,
        encoder=frozenset(variable.path for layer in encoder for variable in layer.trainable_variables),
        momentum=settings.ema,
        statistics=tuple(_statistics(model)),
    )
    return RecipeAdamW(rate, recipe)


@contextlib.contextmanager
def averaged(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Uses the averages of the weights, if there are any, inside a `with` block."""
    swap_averages(optimizer)
    try:
        yield
    finally:
        swap_averages(optimizer)


def swap_averages(optimizer: keras.optimizers.Optimizer) -> None:
    """Calls `RecipeAdamW.swap_averages`, also under loss scaling."""
    getattr(optimizer, "inner_optimizer", optimizer).swap_averages()


def _handle(variable: Any) -> tf.Tensor:
    """Returns a variable's handle for raw operations; of several copies, that of the one being updated."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def _statistics(model: keras.Model) -> list[keras.Variable]:
    """Returns the moving statistics of batch normalisation, except in frozen layers, where they are constant."""
    layers = (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable)
    return [variable for layer in layers for variable in layer.non_trainable_variables]
