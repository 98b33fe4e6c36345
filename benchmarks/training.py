"""Measures training steps: with real data, on one repeated batch, by Keras `fit` and by PyTorch.

    python -m benchmarks.training --data data/camvid --model fcn8 --size 224 224

All contenders train the same layers with the same batch size. They run in turns, so other load on the machine affects
all of them. A result is the median over the turns. segpipe augments its batches and updates scores in every step. Keras
and PyTorch do neither, and minimise plain cross-entropy. TFX and Beam are not needed. Mask R-CNN learns made-up
instances and is measured only in segpipe.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from benchmarks import machine, records
from components import tensorflow_start
from components.dataset import synthetic
from components.dataset.description import built_in, detect
from components.errors import UsageError
from trainer import distribution, input_pipeline, precision
from trainer.config import ModelSettings, TrainingSettings
from trainer.learner import Learner
from trainer.models import registry
from trainer.training import TrainingJob, load_split, make_learner

# Contenders, by their names in --only and the JSON. Keras computes in float32 by default.
REPEATED, DATA, KERAS, KERAS_FLOAT32, TORCH = "segpipe", "segpipe-data", "keras", "keras-float32", "torch"
NAMES = (REPEATED, DATA, KERAS, KERAS_FLOAT32, TORCH)
FLOAT32 = "float32"

_SCRIPT = os.path.join(os.path.dirname(__file__), "torch_models.py")

# Steps that are not timed. They fill the prefetch buffer.
_WARM_UP = 2

# Runs a number of steps and returns their seconds.
Steps = Callable[[int], float]


@dataclasses.dataclass
class Contender:
    """A way to train, and its measurements.

    Attributes:
        steps: runs training steps.
        epoch: a turn runs a multiple of this number of steps.
        first_step: seconds of the first step, which traces and compiles; None if unknown.
        peak_memory: additional bytes of GPU memory; None without a GPU.
        seconds: mean seconds per step, one entry for each turn.
    """

    steps: Steps
    epoch: int = 1
    first_step: float | None = None
    peak_memory: int | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)

    def turn(self, steps: int) -> None:
        """Times at least `steps` steps."""
        number = math.ceil(steps / self.epoch) * self.epoch
        self.seconds.append(self.steps(number) / number)


class Benchmark:
    """Makes the contenders for one training on this machine's first device."""

    def __init__(self, job: TrainingJob, torch_python: str) -> None:
        """Reads the training split.

        Args:
            job: the training; `training.xla` is "on" or "off".
            torch_python: interpreter with PyTorch.
        """
        self._job = job
        self._torch_python = torch_python
        self._strategy = tf.distribute.get_strategy()
        self._policy = precision.detect(job.training.precision)
        self._split = load_split(job, "train", job.train_files, self._strategy)
        self._epoch = input_pipeline.steps(self._split.facts.largest_shard, job.training.batch_size)

    def contender(self, name: str) -> Contender:
        """Returns a contender after its first steps.

        Args:
            name: one of `NAMES`.

        Raises:
            UsageError: `torch_python` has no PyTorch.
        """
        makers: dict[str, Callable[[], Contender]] = {
            REPEATED: lambda: Contender(self._repeated()),
            DATA: lambda: Contender(self._data(), self._epoch),
            KERAS: lambda: Contender(self._keras(self._policy)),
            KERAS_FLOAT32: lambda: Contender(self._keras(FLOAT32)),
            TORCH: lambda: Contender(self._torch()),
        }
        before = machine.reset_gpu_memory()
        contender = makers[name]()
        if name != TORCH:
            # PyTorch's process starts anew in every turn and does its own warm-up steps.
            contender.first_step = contender.steps(1)
            contender.steps(_WARM_UP)
            contender.peak_memory = machine.peak_gpu_memory(before)
        return contender

    def _batches(self) -> Iterator[Any]:
        batch_size, epochs = self._job.training.batch_size, range(1_000_000)
        batches = input_pipeline.training_batches(self._split.pixels, batch_size, self._epoch, epochs, seed=0)
        return iter(distribution.distribute(self._strategy, self._job.task.decode(batches)))

    @functools.cached_property
    def _learner(self) -> Learner:
        # Both segpipe contenders use one network, so the second one does not compile again.
        with precision.policy(self._policy):
            return make_learner(self._job, self._split.facts, self._strategy)

    def _train(self, batch: Callable[[], Any]) -> Steps:
        learner = self._learner

        def run(steps: int) -> float:
            began = time.perf_counter()
            for _ in range(steps):
                learner.train(batch())
            # Wait for the device to finish.
            learner.scores()
            return time.perf_counter() - began

        return run

    def _repeated(self) -> Steps:
        # The batch stays on the device, so steps never wait for data.
        batch = next(self._batches())
        return self._train(lambda: batch)

    def _data(self) -> Steps:
        batches = self._batches()
        return self._train(lambda: next(batches))

    def _keras(self, policy: str) -> Steps:
        job = self._job
        size = job.training.crop_size or job.input_size
        images, masks, _ = next(self._batches())
        # Cut to the window size that segpipe trains on.
        batch = images[:, : size[0], : size[1]], masks[:, : size[0], : size[1]]
        batches = tf.data.Dataset.from_tensors(batch).repeat()
        with precision.policy(policy):
            model = registry.build(job.model, size, job.class_map.num_classes)
            model.compile(
                keras.optimizers.AdamW(job.training.learning_rate),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                jit_compile=job.training.xla == "on",
            )

        def run(steps: int) -> float:
            began = time.perf_counter()
            model.fit(batches, steps_per_epoch=steps, verbose=0)
            return time.perf_counter() - began

        return run

    def _torch(self) -> Steps:
        job = self._job
        name, size = job.model.name, job.training.crop_size or job.input_size
        if subprocess.run([self._torch_python, "-c", "import torch"], capture_output=True).returncode:
            raise UsageError(f"{self._torch_python} has no PyTorch; set --torch-python to an interpreter with PyTorch")
        shape = [*size, job.training.batch_size, job.class_map.num_classes]

        def run(steps: int) -> float:
            command = [self._torch_python, _SCRIPT, name, *map(str, shape), str(steps)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise UsageError(f"PyTorch's process failed: {done.stderr.strip().rpartition(chr(10))[2]}")
            return json.loads(done.stdout)

        return run


def measure(benchmark: Benchmark, names: list[str], steps: int, turns: int) -> Iterator[dict[str, Contender | str]]:
    """Measures contenders in turns.

    Args:
        benchmark: makes the contenders.
        names: contenders to measure, from `NAMES`.
        steps: minimum number of steps in a turn.
        turns: turns of each contender.

    Yields:
        After each turn, each contender by name, or the first line of its error. An error does not stop the others.
    """
    found: dict[str, Contender | str] = {}
    for name in names:
        try:
            found[name] = benchmark.contender(name)
        except Exception as error:
            found[name] = _first_line(error)
    for _ in range(turns):
        for name, contender in found.items():
            if isinstance(contender, Contender):
                try:
                    contender.turn(steps)
                except Exception as error:
                    found[name] = _first_line(error)
        yield found


def summary(found: dict[str, Contender | str], batch_size: int) -> dict[str, Any]:
    """Returns the measurements as plain JSON types.

    Args:
        found: what `measure` yields.
        batch_size: images per step.

    Returns:
        `contenders`: `images_per_second`, `first_step_seconds` and `peak_memory_bytes`, or `error`, by name.
        `ratios`: time of a step divided by the time of a segpipe step on one repeated batch, by name. So it is
        segpipe's speed-up over Keras and PyTorch, and for `segpipe-data` the slowdown by real data. Each ratio is the
        median over the turns.
    """
    contenders: dict[str, Any] = {}
    for name, contender in found.items():
        if isinstance(contender, str):
            contenders[name] = {"error": contender}
            continue
        contenders[name] = {
            "images_per_second": batch_size / statistics.median(contender.seconds),
            "first_step_seconds": contender.first_step,
            "peak_memory_bytes": contender.peak_memory,
        }
    base = found.get(REPEATED)
    ratios = {}
    if isinstance(base, Contender):
        for name, contender in found.items():
            if isinstance(contender, Contender) and contender is not base:
                ratios[name] = statistics.median(
                    other / own for other, own in zip(contender.seconds, base.seconds, strict=True)
                )
    return {"contenders": contenders, "ratios": ratios}


def table(result: dict[str, Any]) -> str:
    """Returns the results, the machine and the settings as readable text."""
    head = [f"{key}: {value}" for key, value in {**result["machine"], **result["settings"]}.items()]
    lines = [f"{'training step':20}{'images/s':>10}{'first step, s':>15}{'peak GPU memory, GB':>21}"]
    for name, values in result["contenders"].items():
        if "error" in values:
            lines.append(f"{name:20}{'not measured':>10}: {values['error']}")
            continue
        first, peak = values["first_step_seconds"], values["peak_memory_bytes"]
        columns = ("-" if first is None else f"{first:.1f}", "-" if peak is None else f"{peak / 1e9:.2f}")
        lines.append(f"{name:20}{values['images_per_second']:10.2f}{columns[0]:>15}{columns[1]:>21}")
    for name, ratio in result["ratios"].items():
        what = "step time with real data over one batch repeated" if name == DATA else f"{REPEATED} over {name}"
        lines.append(f"{what}: {ratio:.3f}")
    return "\n".join([*head, "", *lines])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise argparse.ArgumentTypeError(f"found {', '.join(unknown)}, expected names from {','.join(NAMES)}")
    return names


def _job(arguments: argparse.Namespace, work: str) -> TrainingJob:
    """Returns the training that the arguments describe, and writes its records if they do not exist."""
    size = (arguments.size[0], arguments.size[1])
    data, path = arguments.data, arguments.records or os.path.join(work, "train.gz")
    if os.path.exists(path):
        class_map = (detect(data) if data else built_in("segnet_tutorial")).class_map
    else:
        if not data:
            data = os.path.join(work, "frames")
            synthetic.make(data, pairs={"train": arguments.pairs, "val": 1}, size=size)
        class_map = records.write(data, size, path, arguments.pairs).class_map
    model = ModelSettings(name=arguments.model)
    xla = precision.use_xla(arguments.xla, devices=1)
    if arguments.xla == "auto":
        xla = xla and registry.compiles_with_xla(model)
    training = TrainingSettings(
        batch_size=arguments.batch,
        precision=arguments.precision,
        xla="on" if xla else "off",
        crop_size=arguments.crop and (arguments.crop[0], arguments.crop[1]),
    )
    registry.check(model, size, training)
    things = tuple(range(1, records.THINGS + 1)) if model.task == "instance" else ()
    return TrainingJob(model, training, class_map, size, [path], [path], 0, work, things=things)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", help="folder of images and masks; if not given, synthetic images are drawn")
    parser.add_argument(
        "--records",
        help="TFRecord file of Transform, with the classes of --data or else CamVid; written if it does not exist",
    )
    parser.add_argument("--pairs", type=int, default=128, help="training pairs to write to the records")
    parser.add_argument("--model", default="fcn8", help="architecture")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(224, 224), help="height and width of the images, in pixels"
    )
    parser.add_argument(
        "--crop", type=int, nargs=2, help="height and width of windows, in pixels; if not given, whole images"
    )
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--precision", default="auto", help="value of training.precision")
    parser.add_argument(
        "--xla",
        default="auto",
        choices=("auto", "on", "off"),
        help="value of training.xla; auto decides as for a long training",
    )
    parser.add_argument("--steps", type=int, default=10, help="steps per turn; segpipe-data rounds up to whole epochs")
    parser.add_argument("--turns", type=int, default=3, help="turns of each contender")
    parser.add_argument(
        "--only", type=_names, default=list(NAMES), help=f"contenders to measure, from {','.join(NAMES)}"
    )
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter with PyTorch")
    parser.add_argument("--json", help="file to write the results to")
    arguments = parser.parse_args()
    # Leaves GPU memory for PyTorch's process.
    tensorflow_start.prepare()
    with tempfile.TemporaryDirectory() as work:
        try:
            job = _job(arguments, work)
            benchmark = Benchmark(job, arguments.torch_python)
        except UsageError as error:
            parser.error(str(error))
        settings = {
            "model": job.model.name,
            "size": "x".join(map(str, job.input_size)),
            "window": "x".join(map(str, job.training.crop_size or job.input_size)),
            "batch": job.training.batch_size,
            "precision": precision.detect(job.training.precision),
            "XLA": job.training.xla == "on",
        }
        described = {"machine": machine.describe(), "settings": settings}
        names = arguments.only
        if job.model.task == "instance":
            names = [name for name in names if name in (REPEATED, DATA)]
        if not names:
            parser.error(f"--only: {job.model.name} is measured only in segpipe, expected {REPEATED} or {DATA}")
        for found in measure(benchmark, names, arguments.steps, arguments.turns):
            result = {**described, **summary(found, job.training.batch_size)}
            if arguments.json:
                # Written after each turn, so an interrupted run keeps its finished turns.
                with open(arguments.json, "w") as file:
                    json.dump(result, file, indent=2)
    print(table(result))
    if any("error" in values for name, values in result["contenders"].items() if name != TORCH):
        sys.exit(1)


if __name__ == "__main__":
    main()
