"""Trainings on two devices: in one process, and in two processes that communicate over gRPC like two machines."""

import json
import math
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import run_fn_toy
import tensorflow as tf
import training_toy as toy

from components.errors import UsageError
from trainer import distribution
from trainer.checkpoints import Checkpoints
from trainer.config import ModelSettings
from trainer.sharding import Sharding
from trainer.training import TrainedModel, train

pytestmark = pytest.mark.slow

PROJECT = pathlib.Path(__file__).parents[2]

# Batch normalisation uses the global batch; dropout would differ between one and two devices.
MODEL = {"name": "unet", "base_filters": 4, "normalization": True, "dropout": 0.0}
RECIPE = {
    "epochs": 3, "batch_size": 2, "learning_rate": 5e-3, "keep": "last", "checkpoint_steps": 1, "dice_weight": 0.5,
    "ema": 0.8,
    # Augmentation's random numbers depend on the device.
    "augment": False,
}  # fmt: skip
# The learning rate that two devices use.
ALONE = {**RECIPE, "learning_rate": 5e-3 * math.sqrt(2)}

# Two devices add in another order; three epochs of Adam amplify the difference in the last bit.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> TrainedModel:
    """A training on one device with the global batches of two devices."""
    root = tmp_path_factory.mktemp("alone")
    toy.write_splits(root)
    job = toy.job(root, root / "logs", seed=3, model=ModelSettings(**MODEL), **ALONE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distribution, "sharding", lambda _: Sharding(devices=2))
        patch.setattr(distribution, "distribute", lambda _, batches: batches.batch(2).map(joined))
        return train(job, Checkpoints(str(root / "checkpoint")))


def joined(images: tf.Tensor, masks: tf.Tensor, *seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Merges the batches of two devices, [2, B, ...], into one."""
    pairs = (tf.reshape(values, [-1, *values.shape[2:]]) for values in (images, masks))
    return (*pairs, *(seed[0] for seed in seeds))


@pytest.fixture(scope="module")
def transform_output(tmp_path_factory) -> str:
    return run_fn_toy.write_transform(tmp_path_factory.mktemp("transform"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, transform_output) -> pathlib.Path:
    """The folder of an uninterrupted training by two workers."""
    root = tmp_path_factory.mktemp("unbroken")
    for process in start_workers(root, transform_output):
        finish(process)
    return root


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )


def start_workers(
    root: pathlib.Path, transform_output: str, precisions: tuple[str, str] = ("float32", "float32")
) -> list[subprocess.Popen]:
    """Starts two workers that share only the data and the checkpoints."""
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    return [start_worker(index, addresses, root, transform_output, precision=precisions[index]) for index in range(2)]


def start_worker(
    index: int, addresses: list[str], root: pathlib.Path, transform_output: str, **training: object
) -> subprocess.Popen:
    folder = root / f"worker-{index}"
    folder.mkdir(exist_ok=True)
    arguments = run_fn_toy.arguments(root, transform_output, **{**RECIPE, **training})
    arguments["serving_model_dir"], arguments["model_run_dir"] = str(folder / "model"), str(folder / "model_run")
    arguments["custom_config"]["model"] = MODEL
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    return start(run_fn_toy.__file__, json.dumps(arguments), TF_CONFIG=json.dumps(config))


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def finish(process: subprocess.Popen, code: int = 0) -> tuple[list[dict], str]:
    """Returns a process's progress and its error output."""
    try:
        lines, complaints = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == code, complaints[-3000:]
    return [json.loads(line) for line in lines.splitlines() if line.startswith("{")], complaints


def without_seconds(history: list[dict]) -> list[dict]:
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in history]


def history(root: pathlib.Path) -> list[dict]:
    """Returns the chief's output."""
    return json.loads((root / "worker-0" / "model_run" / "history.json").read_text())


def assert_same_losses(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for name in ("loss", "val_loss", "learning_rate"):
        assert [entry[name] for entry in found] == pytest.approx([entry[name] for entry in expected], rel=TOLERANCE)
    for name in ("mean_iou", "val_mean_iou"):
        # Pixels with nearly equal scores may get either class.
        assert [entry[name] for entry in found] == pytest.approx([entry[name] for entry in expected], abs=0.01)


def test_two_devices_learn_what_one_learns_and_only_two_can_resume(alone, tmp_path):
    toy.write_splits(tmp_path)
    recipe = {**RECIPE, "deterministic": True}
    options = json.dumps({"devices": 2, "seed": 3, "model": MODEL, "training": recipe})

    finish(start(toy.__file__, str(tmp_path), str(tmp_path / "checkpoint"), str(tmp_path / "weights.npz"), options))

    assert_same_losses(json.loads((tmp_path / "weights.json").read_text()), alone.history)
    job = toy.job(tmp_path, tmp_path / "logs", seed=3, model=ModelSettings(**MODEL), **{**RECIPE, "epochs": 4})
    refused = rf"checkpoints {tmp_path / 'checkpoint'}: found a training on 2 device\(s\), expected 1"
    with pytest.raises(UsageError, match=refused):
        train(job, Checkpoints(str(tmp_path / "checkpoint")))


def test_gradients_that_overflow_on_one_device_move_no_weight_on_any():
    (found,), _ = finish(start(str(PROJECT / "tests" / "trainer" / "overflow_toy.py")))

    assert found["same"] == [True, True]
    assert found["scales"][1] == found["scales"][0] / 2


def test_workers_of_different_precision_are_refused(tmp_path, transform_output):
    chief, other = start_workers(tmp_path, transform_output, precisions=("float32", "mixed_bfloat16"))
    _, complaints = finish(other, code=2)
    chief.kill()
    chief.communicate()

    assert "training.precision: found mixed_bfloat16 on this worker, expected the chief's float32" in complaints


def test_two_workers_learn_what_one_learns_from_the_same_batches(alone, unbroken):
    assert_same_losses(history(unbroken), alone.history)


def test_only_the_chief_writes_files(unbroken):
    model = tf.saved_model.load(str(unbroken / "worker-0" / "model"))

    assert set(model.signatures) >= {"serving_default", "evaluation"}
    assert list((unbroken / "worker-1").iterdir()) == []
    assert list((unbroken / "checkpoints").iterdir()) == []


def test_a_lost_worker_costs_only_the_interrupted_steps(unbroken, tmp_path, transform_output):
    chief, other = start_workers(tmp_path, transform_output)
    for line in chief.stdout:
        if line.startswith("{") and json.loads(line)["epoch"] == 2:
            other.kill()
            break
    _, complaints = finish(chief, code=1)
    other.communicate()

    assert "another worker was lost in epoch" in complaints
    (folder,) = (tmp_path / "checkpoints").iterdir()
    kept = json.loads((folder / "state.json").read_text())
    made = (len(kept["history"]), kept["step"])
    assert (1, 0) <= made < (3, 0)

    chief, other = start_workers(tmp_path, transform_output)
    records, _ = finish(chief)
    finish(other)

    assert (records[0]["epoch"], records[0]["step"]) == (made[0] + 1, made[1] + 1)
    assert without_seconds(history(tmp_path)) == without_seconds(history(unbroken))


def test_a_chief_that_fails_after_the_last_epoch_ends_without_the_others(tmp_path, transform_output):
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    chief, other = (
        start_worker(index, addresses, tmp_path, str(tmp_path / "nonexistent"), epochs=1) for index in range(2)
    )
    finish(chief, code=1)
    finish(other)
    assert not (tmp_path / "worker-0" / "model").exists()

    records, _ = finish(start_worker(0, addresses, tmp_path, transform_output, epochs=1))

    assert records == []
    assert len(history(tmp_path)) == 1
    tf.saved_model.load(str(tmp_path / "worker-0" / "model"))
    assert list((tmp_path / "checkpoints").iterdir()) == []
