"""Arguments of `run_fn` for the tiny data set; as a script, it is one worker, as TFX's Trainer would start it."""

import functools
import json
import logging
import pathlib
import sys
import types
from typing import Any

import numpy as np
import tensorflow as tf
import training_toy as toy

from components import features, preprocessing
from components.errors import SegpipeError
from trainer.run_fn import run_fn


def write_transform(directory: pathlib.Path, size: tuple[int, int] = toy.SIZE) -> str:
    """Returns the folder of Transform's output for the toy's raw features."""
    # Imported here, so that workers start faster.
    import apache_beam as beam
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam

    rows = [{name: toy.png(array) for name, array in zip((features.IMAGE, features.MASK), _pair(), strict=True)}]
    schema = tft.DatasetMetadata.from_feature_spec({name: tf.io.FixedLenFeature([], tf.string) for name in rows[0]})
    prepare = functools.partial(
        preprocessing.preprocessing_fn, custom_config={"input_size": list(size), "normalize_exposure": False}
    )
    with beam.Pipeline() as pipeline, tft_beam.Context(temp_dir=str(directory / "temp")):
        transform_fn = (pipeline | beam.Create(rows), schema) | tft_beam.AnalyzeDataset(prepare)
        transform_fn | tft_beam.WriteTransformFn(str(directory / "output"))
    return str(directory / "output")


def arguments(directory: pathlib.Path, transform_output: str, **training: object) -> dict[str, Any]:
    """Writes the splits into a directory; returns the arguments of `run_fn`."""
    train_file, eval_file = toy.write_splits(directory)
    return {
        "train_files": [train_file],
        "eval_files": [eval_file],
        "transform_output": transform_output,
        "serving_model_dir": str(directory / "model" / "Format-Serving"),
        "model_run_dir": str(directory / "model_run"),
        "custom_config": {
            "model": {"name": "unet", "base_filters": 4, "dropout": 0.0},
            "training": {"precision": "float32", **training},
            "input_size": list(toy.SIZE),
            "normalize_exposure": False,
            "class_map": toy.CLASS_MAP.to_json(),
            "things": [],
            "depth_scale": 256,
            "seed": 3,
            "max_pixels": 1000000,
            "tile_size": None,
            "tile_overlap": 0.25,
            "export_precision": "float32",
            "checkpoint_root": str(directory / "checkpoints"),
            "checkpoints_shared": False,
            "code": "abc",
        },
    }


def _pair() -> tuple[np.ndarray, np.ndarray]:
    return toy.pair(np.random.default_rng(0))


if __name__ == "__main__":
    progress = logging.getLogger("segpipe.progress")
    progress.setLevel(logging.INFO)
    progress.addHandler(toy.Printer())
    try:
        run_fn(types.SimpleNamespace(**json.loads(sys.argv[1])))
    except SegpipeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
