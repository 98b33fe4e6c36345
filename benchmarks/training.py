"""How fast a training step is: against plain Keras `fit`, against PyTorch, and with real data against none.

    python -m benchmarks.training --data data/camvid --model fcn8 --size 224 224

All train the same layers on the same batch. They take turns, so that whatever else the machine does
hits all of them; medians over the turns are printed. Keras and PyTorch minimise plain cross-entropy
and keep no score. PyTorch is measured for FCN-8, where its interpreter has it: see --torch-python.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import keras
import tensorflow as tf
from PIL import Image

from components import features, preprocessing
from components.dataset import masks, synthetic
from components.dataset.description import DatasetDescription, detect
from components.dataset.pairs import Pair, find_pairs
from trainer import augmentation, input_pipeline, precision
from trainer.config import ModelSettings, TrainingSettings
from trainer.models import registry
from trainer.training import TrainingJob, make_learner

BFLOAT16, FLOAT32 = "mixed_bfloat16", "float32"
OURS, OURS_FLOAT32, WITH_DATA = "segpipe, bfloat16", "segpipe, float32", "segpipe, bfloat16, real data"
KERAS, KERAS_FLOAT32, TORCH = "Keras fit, bfloat16", "Keras fit, float32", "PyTorch, bfloat16, channels last"

# Pairs that are made into records, at least: more than the steps' prefetched batches hold.
_PAIRS = 128

# Makes some steps and returns the seconds they took.
Steps = Callable[[int], float]


def write_records(data: str, size: tuple[int, int], path: str, count: int = _PAIRS) -> DatasetDescription:
    """Writes training pairs of a data set as Transform does, again where there are fewer; returns its description."""
    description = detect(data)
    pairs = [pair for pair in find_pairs(data, description)[0] if pair.split == "train"]
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for pair in itertools.islice(itertools.cycle(pairs), count):
            values = _transformed(data, pair, description, size)
            feature = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return description


def _transformed(data: str, pair: Pair, description: DatasetDescription, size: tuple[int, int]) -> dict[str, bytes]:
    with open(os.path.join(data, pair.image), "rb") as file:
        image = file.read()
    with open(os.path.join(data, pair.mask), "rb") as file:
        stored = file.read()
    with Image.open(io.BytesIO(stored)) as mask:
        indices = masks.encode(masks.class_indices(mask, stored, description))
    return {
        features.TRANSFORMED_IMAGE: tf.io.encode_png(
            preprocessing.resize_image(tf.constant(image), *size, even=False)
        ).numpy(),
        features.TRANSFORMED_MASK: preprocessing.resize_mask(tf.constant(indices), *size).numpy(),
    }


def ours(job: TrainingJob, policy: str, streams: list[tf.data.Dataset]) -> list[Steps]:
    """Returns the project's step on each of some streams of batches, of one network."""
    facts = input_pipeline.count(job.train_files, job.class_map.num_classes, "train")
    with precision.policy(policy):
        learner = make_learner(job, facts, tf.distribute.get_strategy())

    def on(stream: tf.data.Dataset) -> Steps:
        batches = iter(stream)

        def run(steps: int) -> float:
            began = time.perf_counter()
            for _ in range(steps):
                learner.train(batches)
            learner.scores()
            return time.perf_counter() - began

        return run

    return [on(stream) for stream in streams]


def keras_fit(job: TrainingJob, policy: str, batches: tf.data.Dataset) -> Steps:
    """Returns plain Keras `fit` on a stream of batches, compiled by XLA where the project does it."""
    with precision.policy(policy):
        model = registry.build(job.model, job.input_size, job.class_map.num_classes)
        model.compile(
            keras.optimizers.AdamW(job.training.learning_rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=precision.use_xla(devices=1),
        )

    def run(steps: int) -> float:
        began = time.perf_counter()
        model.fit(batches, steps_per_epoch=steps, verbose=0)
        return time.perf_counter() - began

    return run


def torch_steps(python: str, job: TrainingJob) -> Steps | None:
    """Returns FCN-8's step in PyTorch, in a process of its own; None where that interpreter has no PyTorch."""
    script = os.path.join(os.path.dirname(__file__), "torch_fcn8.py")
    sizes = [*job.input_size, job.training.batch_size, job.class_map.num_classes]

    def run(steps: int) -> float:
        command = [python, script, *map(str, sizes), str(steps)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    known = subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0
    return run if known and job.model.name == "fcn8" else None


def contenders(job: TrainingJob, torch_python: str) -> dict[str, Steps]:
    """Returns everything that is measured, by name."""
    settings = job.training
    batches = input_pipeline.training_batches(
        job.train_files,
        job.input_size,
        settings.batch_size,
        input_pipeline.count(job.train_files, job.class_map.num_classes, "train").examples,
        range(1_000_000),
        0,
        augmentation.build(settings, job.input_size),
    )
    repeated = tf.data.Dataset.from_tensors(next(iter(batches))).repeat()
    ours_bfloat16, with_data = ours(job, BFLOAT16, [repeated, batches])
    (ours_float32,) = ours(job, FLOAT32, [repeated])
    found: dict[str, Steps | None] = {
        OURS: ours_bfloat16,
        WITH_DATA: with_data,
        KERAS: keras_fit(job, BFLOAT16, repeated),
        TORCH: torch_steps(torch_python, job),
        OURS_FLOAT32: ours_float32,
        KERAS_FLOAT32: keras_fit(job, FLOAT32, repeated),
    }
    return {name: steps for name, steps in found.items() if steps}


def table(seconds: dict[str, list[float]], images: int) -> str:
    """Lays out the seconds of each turn, and what they say about the project's step.

    Args:
        seconds: by name, one entry for each turn.
        images: images of a turn.
    """
    lines = [f"{'training step':36}{'images/s':>10}"]
    lines += [f"{name:36}{images / statistics.median(turns):10.2f}" for name, turns in seconds.items()]
    compared = ((OURS, KERAS), (OURS, TORCH), (OURS, KERAS_FLOAT32), (OURS_FLOAT32, KERAS_FLOAT32))
    for name, other in compared:
        if other in seconds:
            lines.append(f"{name} over {other}: {_ratio(seconds[other], seconds[name]):.2f}")
    lines.append(f"step time with real data over one batch repeated: {_ratio(seconds[WITH_DATA], seconds[OURS]):.3f}")
    return "\n".join(lines)


def _ratio(seconds: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(seconds, others, strict=True))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", help="folder of images and masks; None draws synthetic ones")
    parser.add_argument("--model", default="fcn8", help="architecture")
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), help="height and width of the network's input")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=3, help="turns of each")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that may have PyTorch")
    arguments = parser.parse_args()
    size = (arguments.size[0], arguments.size[1])
    with tempfile.TemporaryDirectory() as work:
        data, records = arguments.data or os.path.join(work, "frames"), os.path.join(work, "train.gz")
        if not arguments.data:
            synthetic.make(data, pairs={"train": _PAIRS, "val": 1}, size=size)
        # Whole batches, so that every step has as many images as the table counts.
        count = math.ceil(_PAIRS / arguments.batch) * arguments.batch
        class_map = write_records(data, size, records, count).class_map
        training = TrainingSettings(batch_size=arguments.batch)
        job = TrainingJob(ModelSettings(name=arguments.model), training, class_map, size, [records], [records], 0, work)
        measured = contenders(job, arguments.torch_python)
        for steps in measured.values():
            # Traces the step, and fills the prefetched batches.
            steps(2)
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(arguments.turns):
            for name, steps in measured.items():
                seconds[name].append(steps(arguments.steps))
    print(table(seconds, arguments.batch * arguments.steps))


if __name__ == "__main__":
    main()
