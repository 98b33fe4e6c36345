"""A trial runs in its own process."""

import json
import subprocess
import sys

import pytest

from trainer import trial
from trainer.config import ModelSettings, TrainingSettings

_SMALL = {
    "model": ModelSettings(name="unet", base_filters=4).model_dump(),
    "training": TrainingSettings(batch_size=2, crop_size=(32, 32)).model_dump(),
    "size": [64, 64],
    "classes": 3,
}


def _run(job, limit="unlimited"):
    command = ["bash", "-c", f"ulimit -v {limit}; exec {sys.executable} -m trainer.trial"]
    return subprocess.run(command, input=json.dumps(job), capture_output=True, text=True)


@pytest.mark.parametrize("options", [{}, {"depth": True}], ids=str)
def test_a_trial_times_steps_of_both_kinds(options):
    done = _run({**_SMALL, "model": {**_SMALL["model"], **options}})

    assert done.returncode == 0, done.stderr
    timing = trial.StepCosts(**json.loads(done.stdout))
    assert min(timing.step, timing.alone, timing.validation_step, timing.start) > 0
    assert timing.devices == 1
    assert 10**8 < timing.memory < 10**10


def test_a_trial_without_enough_memory_has_its_own_exit_code():
    # The images need 3 * 2**33 bytes.
    assert _run({**_SMALL, "size": [2**16, 2**16]}, limit=8 * 2**20).returncode == trial.OUT_OF_MEMORY


def test_settings_that_do_not_fit_are_explained_in_the_last_line():
    done = _run({**_SMALL, "size": [60, 64]})

    assert done.returncode == 1
    assert "a multiple of 16, not 60" in done.stderr.strip().splitlines()[-1]
