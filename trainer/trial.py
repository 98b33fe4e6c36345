"""Times a few training steps on random pixels, in a process that may run out of memory.

`python -m trainer.trial` reads a job as JSON from standard input: `model` and `training` as in a configuration, `size`,
and the number of `classes`. It prints the fields of `StepCosts` as JSON. If the steps do not fit into memory, it exits
with `OUT_OF_MEMORY`, or the kernel kills it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

OUT_OF_MEMORY = 75
_STEPS = 7
# No further step is timed after this many seconds.
_MAX_SECONDS = 20.0
# TensorFlow raises errors of several types when a device or a library runs out of memory.
_OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "out_of_memory",
    "oom when allocating",
    "resource_exhausted",
    "failed to allocate",
)


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """Time and memory of the steps.

    Attributes:
        step: median seconds of a training step.
        alone: lower bound of `step` on an otherwise idle machine: processor seconds divided by cores.
        validation_step: median seconds of a validation step at the input size.
        start: seconds until the first step of both kinds is done, without the import of TensorFlow.
        devices: number of devices that share a step.
        memory: peak memory of the process in bytes, without GPU memory.
    """

    step: float
    alone: float
    validation_step: float
    start: float
    devices: int
    memory: int


def measure(model: dict[str, Any], training: dict[str, Any], size: tuple[int, int], classes: int) -> StepCosts:
    """Runs the first steps of a training and times the following ones.

    Args:
        model: settings of `ModelSettings`.
        training: settings of `TrainingSettings`.
        size: height and width of the input, in pixels.
        classes: number of classes.

    Raises:
        UsageError: the settings do not fit each other, or a required GPU is unusable.
    """
    import keras
    import numpy as np

    from components import gpu
    from components.class_map import ClassMap
    from trainer import distribution, input_pipeline, memory, precision
    from trainer.config import ModelSettings, TrainingSettings
    from trainer.decoded import DecodedSplit, SplitFacts
    from trainer.models import registry
    from trainer.training import TrainingJob, make_learner

    class_map = ClassMap(tuple(map(str, range(classes))), ((0, 0, 0),) * classes)
    settings = TrainingSettings(**training)
    job = TrainingJob(ModelSettings(**model), settings, class_map, size, (), (), seed=0, log_dir="")
    registry.check(job.model, size, settings)
    if settings.require_gpu:
        gpu.require_gpu(gpu.usable_gpus())
    began = time.monotonic()
    strategy = distribution.choose()
    devices = strategy.num_replicas_in_sync
    registry.check_batch(job.model, settings.batch_size * devices)
    random, images = np.random.default_rng(0), settings.batch_size * devices
    masks = random.integers(0, classes, (images, *size), np.uint8)
    split = DecodedSplit(
        random.integers(0, 256, (images, *size, 3), np.uint8),
        # With depth, any values of depth maps do.
        np.stack([masks, masks], axis=-1).astype(np.uint16) if job.model.depth else masks,
        np.arange(images) % devices,
        distribution.sharding(strategy),
    )
    pixels = np.bincount(masks.ravel(), minlength=classes)
    keras.utils.set_random_seed(0)
    with precision.policy(precision.detect(settings.precision)):
        # As if a checkpoint provided the weights: their values do not change the time.
        learner = make_learner(job, SplitFacts(images, settings.batch_size, pixels, pixels), strategy, fresh=False)
        training_batches = input_pipeline.training_batches(split, settings.batch_size, 1, range(10**6), seed=0)
        evaluation_batches = input_pipeline.evaluation_batches(split, settings.batch_size, 1).repeat()
        train = _timings(learner.train, iter(distribution.distribute(strategy, training_batches)), learner.scores)
        validate = _timings(
            learner.validate, iter(distribution.distribute(strategy, evaluation_batches)), learner.scores
        )
        next(train)
        next(validate)
        start = time.monotonic() - began
        busy = time.process_time()
        step, steps = _median(train)
        alone = (time.process_time() - busy) / steps / len(os.sched_getaffinity(0))
        validation_step, _ = _median(validate)
    return StepCosts(step, alone, validation_step, start, devices, memory.peak())


def _timings(run: Callable[[Any], None], batches: Iterator[Any], wait: Callable[[], Any]) -> Iterator[float]:
    """Runs steps and yields the seconds of each."""
    while True:
        began = time.monotonic()
        run(next(batches))
        wait()
        yield time.monotonic() - began


def _median(timings: Iterator[float]) -> tuple[float, int]:
    """Times some steps; returns the median seconds and the number of steps."""
    seconds: list[float] = []
    while len(seconds) < _STEPS and sum(seconds) < _MAX_SECONDS:
        seconds.append(next(timings))
    return statistics.median(seconds), len(seconds)


def main() -> None:
    """Reads a job from standard input and prints its timing."""
    from components.errors import SegpipeError
    from components.tensorflow_start import prepare

    # Makes the kernel kill this process before others if memory runs out: proc_pid_oom_score_adj(5).
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    prepare(quiet=True)
    job = json.load(sys.stdin)
    try:
        timing = measure(job["model"], job["training"], tuple(job["size"]), job["classes"])
    except SegpipeError as error:
        sys.exit(str(error))
    except Exception as error:
        if isinstance(error, MemoryError) or any(text in str(error).lower() for text in _OUT_OF_MEMORY_TEXTS):
            sys.exit(OUT_OF_MEMORY)
        raise
    print(json.dumps(dataclasses.asdict(timing)))


if __name__ == "__main__":
    main()
