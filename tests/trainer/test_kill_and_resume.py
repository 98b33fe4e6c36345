import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import training_toy as toy

from trainer.checkpoints import Checkpoints
from trainer.training import train

PROJECT = pathlib.Path(__file__).parents[2]


def start(data: pathlib.Path, checkpoint: pathlib.Path, output: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, toy.__file__, str(data), str(checkpoint), str(output)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def finish(process: subprocess.Popen) -> list[dict]:
    lines, _ = process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_a_training_killed_in_its_second_epoch_ends_like_an_uninterrupted_one(tmp_path):
    toy.write_splits(tmp_path)
    unbroken = train(toy.job(tmp_path, tmp_path / "logs", keep="last"), Checkpoints(str(tmp_path / "unbroken")))

    process = start(tmp_path, tmp_path / "checkpoint", tmp_path / "resumed.npz")
    for line in process.stdout:
        if line.startswith("{") and json.loads(line)["epoch"] == 2:
            process.kill()
            break
    process.communicate()
    assert not (tmp_path / "resumed.npz").exists()
    records = finish(start(tmp_path, tmp_path / "checkpoint", tmp_path / "resumed.npz"))

    resumed_from = records[0]["resumed_from"]
    assert resumed_from in (1, 2)
    assert records[0]["epoch"] == resumed_from + 1
    history = json.loads((tmp_path / "resumed.json").read_text())
    for name in ("epoch", "loss", "val_loss", "learning_rate"):
        assert [entry[name] for entry in history] == pytest.approx([e[name] for e in unbroken.history], abs=1e-5)
    with np.load(tmp_path / "resumed.npz") as resumed:
        for name, expected in zip(resumed, toy.weights(unbroken), strict=True):
            np.testing.assert_allclose(resumed[name], expected, atol=1e-5)
