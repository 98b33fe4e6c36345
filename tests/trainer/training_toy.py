"""A tiny data set and training for the tests; as a script, it trains in a process that can be killed."""

import io
import json
import logging
import pathlib
import sys
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from PIL import Image

from components import features
from components.class_map import ClassMap
from trainer.checkpoints import Checkpoints
from trainer.config import ModelSettings, TrainingSettings
from trainer.training import Split, TrainedModel, TrainingJob, load_split, train

SIZE = (32, 48)
CLASS_MAP = ClassMap(
    ("ground", "box", "stripe", "void"), ((90, 90, 90), (200, 40, 40), (40, 200, 40), (0, 0, 0)), ignore_index=3
)

# Small; with dropout, to test its randomness.
UNET = ModelSettings(name="unet", base_filters=4, normalization=True, dropout=0.1)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image and a mask of a box and a stripe on the ground, with noise and a void border."""
    mask = np.zeros(SIZE, np.uint8)
    top, left = rng.integers(4, 14), rng.integers(4, 14)
    mask[top : top + 12, left : left + 12] = 1
    column = rng.integers(30, 40)
    mask[4:28, column : column + 5] = 2
    mask[:2] = 3
    image = CLASS_MAP.colorize(mask) + rng.normal(0, 20, (*SIZE, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def write_examples(path: pathlib.Path, examples: Iterable[dict[str, bytes]]) -> str:
    """Writes the features of examples, as Transform does."""
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for values in examples:
            feature = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(path)


def write_records(path: pathlib.Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
    return write_examples(
        path,
        ({features.TRANSFORMED_IMAGE: png(image), features.TRANSFORMED_MASK: png(mask)} for image, mask in pairs),
    )


def write_splits(directory: pathlib.Path, train_examples: int = 20, eval_examples: int = 6) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    sizes = {"train": train_examples, "eval": eval_examples}
    train_file, eval_file = (
        write_records(directory / f"{split}.gz", [pair(rng) for _ in range(number)]) for split, number in sizes.items()
    )
    return train_file, eval_file


def job(
    directory: pathlib.Path,
    log_dir: pathlib.Path,
    seed: int | None = 5,
    model: ModelSettings = UNET,
    **training: object,
) -> TrainingJob:
    """Returns a job on the splits in a directory."""
    recipe = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2, "precision": "float32", **training}
    return TrainingJob(
        model=model,
        training=TrainingSettings(**recipe),
        class_map=CLASS_MAP,
        input_size=SIZE,
        train_files=[str(directory / "train.gz")],
        eval_files=[str(directory / "eval.gz")],
        seed=seed,
        log_dir=str(log_dir),
    )


def split(job: TrainingJob, name: str = "train") -> Split:
    """Returns a split of a job for one device."""
    files = {"train": job.train_files, "eval": job.eval_files}[name]
    return load_split(job, name, files, tf.distribute.get_strategy())


def weights(trained: TrainedModel) -> list[np.ndarray]:
    return trained.model.get_weights()


class Printer(logging.Handler):
    """Prints each progress record as a line of JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        print(json.dumps(record.progress), flush=True)


def main(directory: str, checkpoint_dir: str, output: str, options: str = "{}") -> None:
    """Trains; the options are JSON: `devices` (number of logical CPUs), `seed`, `model` and `training`."""
    chosen = {"devices": 1, "seed": 5, "model": UNET.model_dump(), "training": {}, **json.loads(options)}
    strategy = mirrored(chosen["devices"]) if chosen["devices"] > 1 else None
    progress = logging.getLogger("segpipe.progress")
    progress.setLevel(logging.INFO)
    progress.addHandler(Printer())
    root = pathlib.Path(directory)
    recipe = {"keep": "last", **chosen["training"]}
    trained = train(
        job(root, root / "logs", chosen["seed"], ModelSettings(**chosen["model"]), **recipe),
        Checkpoints(checkpoint_dir),
        strategy,
    )
    np.savez(output, *weights(trained))
    pathlib.Path(output).with_suffix(".json").write_text(json.dumps(trained.history))


def mirrored(devices: int) -> tf.distribute.Strategy:
    """Returns a strategy over logical CPUs; call it before TensorFlow computes anything."""
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * devices)
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(devices)])


if __name__ == "__main__":
    main(*sys.argv[1:])
