import functools
import json
import pathlib
import types

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
import training_toy as toy

from components import features, preprocessing
from components.errors import SegpipeError
from trainer.run_fn import run_fn


@pytest.fixture(scope="module")
def transform_output(tmp_path_factory) -> str:
    """Transform's output for the toy's raw features."""
    directory = tmp_path_factory.mktemp("transform")
    image, mask = toy.pair(np.random.default_rng(0))
    rows = [{features.IMAGE: toy.png(image), features.MASK: toy.png(mask)}]
    schema = tft.DatasetMetadata.from_feature_spec({name: tf.io.FixedLenFeature([], tf.string) for name in rows[0]})
    prepare = functools.partial(preprocessing.preprocessing_fn, custom_config={"input_size": list(toy.SIZE)})
    with beam.Pipeline() as pipeline, tft_beam.Context(temp_dir=str(directory / "temp")):
        transform_fn = (pipeline | beam.Create(rows), schema) | tft_beam.AnalyzeDataset(prepare)
        transform_fn | tft_beam.WriteTransformFn(str(directory / "output"))
    return str(directory / "output")


@pytest.fixture
def fn_args(tmp_path, transform_output) -> types.SimpleNamespace:
    for split in ("Split-train", "Split-eval"):
        (tmp_path / split).mkdir()
    train_file, eval_file = (pathlib.Path(path) for path in toy.write_splits(tmp_path))
    train_file.rename(tmp_path / "Split-train" / "transformed-00000-of-00001.gz")
    eval_file.rename(tmp_path / "Split-eval" / "transformed-00000-of-00001.gz")
    return types.SimpleNamespace(
        train_files=[str(tmp_path / "Split-train" / "*")],
        eval_files=[str(tmp_path / "Split-eval" / "*")],
        transform_output=transform_output,
        serving_model_dir=str(tmp_path / "model" / "Format-Serving"),
        model_run_dir=str(tmp_path / "model_run"),
        custom_config={
            "model": {"name": "unet", "base_filters": 4},
            "training": {"epochs": 1, "batch_size": 4},
            "input_size": list(toy.SIZE),
            "class_map": toy.CLASS_MAP.to_json(),
            "seed": 3,
            "max_pixels": 1000000,
            "checkpoint_root": str(tmp_path / "checkpoints"),
            "code": "abc",
        },
    )


def test_it_leaves_a_model_that_segments_encoded_images_and_its_history(fn_args):
    run_fn(fn_args)

    serve = tf.saved_model.load(fn_args.serving_model_dir).signatures["serving_default"]
    image, _ = toy.pair(np.random.default_rng(1))
    answer = serve(image=tf.constant([toy.png(image)]))
    assert answer["class_map"].shape == (1, *toy.SIZE)
    history = json.loads((pathlib.Path(fn_args.model_run_dir) / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [1]
    metadata = json.loads((pathlib.Path(fn_args.serving_model_dir) / "assets" / "segpipe.json").read_text())
    assert (metadata["model"], metadata["seed"], metadata["code"]) == ("unet", 3, "abc")
    assert metadata["val_mean_iou"] == history[0]["val_mean_iou"]
    assert list((pathlib.Path(fn_args.custom_config["checkpoint_root"])).iterdir()) == []


def test_an_export_that_fails_leaves_the_checkpoint(fn_args):
    fn_args.transform_output = "/nonexistent"

    with pytest.raises(OSError, match="nonexistent"):
        run_fn(fn_args)

    (folder,) = pathlib.Path(fn_args.custom_config["checkpoint_root"]).iterdir()
    assert (folder / "state.json").exists()


def test_no_files_is_explained(fn_args):
    fn_args.train_files = [fn_args.train_files[0] + ".absent"]

    with pytest.raises(SegpipeError, match="no file matches"):
        run_fn(fn_args)
