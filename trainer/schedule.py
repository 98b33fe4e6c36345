"""The learning rate schedule: linear warm-up to the peak, then cosine decay to zero."""

from __future__ import annotations

import math

import keras

from trainer.config import TrainingSettings


def learning_rate(
    settings: TrainingSettings, steps_per_epoch: int, devices: int = 1
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the schedule as a function of the optimizer's step.

    It depends only on the step, so a resumed training continues on the same curve. Sources: of the cosine, Loshchilov
    and Hutter 2016, arXiv 1608.03983, without restarts; of the peak that grows with the square root of the global
    batch, as suits Adam, Malladi et al. 2022, arXiv 2205.10330.

    Args:
        settings: peak `learning_rate`, `epochs` and `warmup_epochs`.
        steps_per_epoch: optimizer steps per epoch.
        devices: number of devices that share a step, each with its own batch.
    """
    total = settings.epochs * steps_per_epoch
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total - 1)
    peak = settings.learning_rate * math.sqrt(devices)
    if warmup < 1:
        return keras.optimizers.schedules.CosineDecay(peak, decay_steps=total)
    return keras.optimizers.schedules.CosineDecay(
        # Starts above zero, because the first step would do nothing.
        initial_learning_rate=peak / (warmup + 1),
        decay_steps=total - warmup,
        warmup_target=peak,
        warmup_steps=warmup,
    )
