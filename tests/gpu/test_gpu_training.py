"""Whole trainings on a GPU: from records to an exported model, and on two logical devices."""

import json
import os
import pathlib
import subprocess
import sys
import types

import devices_toy
import numpy as np
import pytest
import run_fn_toy
import tensorflow as tf
import training_toy as toy

from benchmarks import records
from components import features, preprocessing
from components.dataset import synthetic
from trainer.checkpoints import Checkpoints
from trainer.training import train

PROJECT = pathlib.Path(__file__).parents[2]
SIZE = (48, 64)


def test_a_training_learns_in_a_process_that_has_used_the_device_before(tmp_path):
    tf.linalg.matmul(tf.ones([8, 8]), tf.ones([8, 8]))
    toy.write_splits(tmp_path)

    trained = train(toy.job(tmp_path, tmp_path / "logs", precision="auto"), Checkpoints(str(tmp_path / "checkpoint")))

    loss = [entry["loss"] for entry in trained.history]
    assert len(loss) == 3
    assert loss[-1] < loss[0]
    assert 0 < trained.history[-1]["val_mean_iou"] <= 1


def write_transform(directory: pathlib.Path) -> str:
    """Writes the parts of Transform's graph that an export reads, without TFX; see `serving.transform_graph`."""
    names = (features.IMAGE, features.MASK)

    @tf.function(input_signature=[{name: tf.TensorSpec([None], tf.string) for name in names}])
    def transform(inputs):
        config = {"input_size": list(SIZE), "normalize_exposure": False}
        return preprocessing.preprocessing_fn(inputs, custom_config=config)

    module = tf.Module()
    module.transform_fn = transform.get_concrete_function()
    tf.saved_model.save(module, str(directory / "transform_fn"))
    return str(directory)


def test_run_fn_exports_a_model_that_predicts_and_can_be_evaluated(tmp_path, capsys):
    pytest.importorskip("tensorflow_serving", reason="the export writes TensorFlow Serving's warm-up requests")
    pytest.importorskip("typer", reason="`segpipe evaluate` needs it")
    from pipeline.cli import models
    from trainer.run_fn import run_fn

    data = str(tmp_path / "data")
    synthetic.make(data, pairs={"train": 8, "val": 4}, size=SIZE)
    arguments = run_fn_toy.arguments(tmp_path, write_transform(tmp_path / "transform"), epochs=1, batch_size=4)
    files = {"train_files": ("train", 8), "eval_files": ("val", 4)}
    for name, (split, count) in files.items():
        path = str(tmp_path / f"synthetic-{split}.gz")
        description = records.write(data, SIZE, path, count, split)
        arguments[name] = [path]
    arguments["custom_config"] |= {"input_size": list(SIZE), "class_map": description.class_map.to_json()}
    arguments["custom_config"]["training"]["precision"] = "auto"

    run_fn(types.SimpleNamespace(**arguments))

    exported = arguments["serving_model_dir"]
    serve = tf.saved_model.load(exported).signatures["serving_default"]
    image = toy.png(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    assert serve(image=tf.constant([image, image]))["class_map"].shape == (2, *SIZE)
    capsys.readouterr()
    models.evaluate(model=exported, data=data, split="val", description="auto", as_json=True)
    scores = json.loads(capsys.readouterr().out)
    assert scores["frames"] == 4
    assert 0 <= scores["mean_iou"] <= 1


def train_on_devices(directory: pathlib.Path, devices: int) -> list[float]:
    directory.mkdir()
    path = os.pathsep.join([str(PROJECT), *(folder for folder in sys.path if folder)])
    done = subprocess.run(
        [sys.executable, devices_toy.__file__, str(directory), str(devices)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_two_logical_devices_train_as_one_does(tmp_path):
    one, two = (train_on_devices(tmp_path / str(devices), devices) for devices in (1, 2))

    # Two devices add in another order; Adam amplifies the difference in the last bits.
    assert two == pytest.approx(one, rel=5e-3)
    assert two[0] == pytest.approx(one[0], rel=1e-4)
