"""Times the training steps of a network on this machine, in a separate process, and finds the batch size that fits.

The result is stored in the work directory, so that a repeated run has the same settings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from typing import Any

from components import files
from components.errors import SegpipeError, UsageError
from pipeline.auto.facts import MachineFacts
from pipeline.auto.rules import Speed
from pipeline.configuration.config import RunConfig
from trainer import memory
from trainer.cluster import TF_CONFIG
from trainer.trial import OUT_OF_MEMORY, StepCosts

# Fraction of the available memory that steps may use. The decoded splits use up to `training.memory_fraction` each.
_MEMORY = 0.5
# Exit codes of a process that runs out of memory: its own, that of the kernel, and those of a failed allocation in C++,
# after which TensorFlow 2.21 may crash.
_OUT_OF_MEMORY = (OUT_OF_MEMORY, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV)
# If steps are slower by this factor than without other programs, the note says so.
_DISTURBED = 1.3


def measure(config: RunConfig, classes: int, machine: MachineFacts, folder: str, minutes: float) -> tuple[Speed, str]:
    """Returns the speed of a network at the largest batch size that fits, and a note on the measurement.

    Args:
        config: the run; its batch size is tried first, then halved until it fits.
        classes: number of classes.
        machine: this machine.
        folder: the folder of stored measurements.
        minutes: the time budget; a longer trial is stopped.

    Raises:
        UsageError: no batch fits, the steps take too long, settings contradict, or the folder cannot be written.
        SegpipeError: the trial failed.
    """
    training = config.training.model_dump(mode="json", exclude={"validate_every", "keep", "warm_start"})
    job = {"model": config.model.model_dump(mode="json"), "training": training, "size": config.size, "classes": classes}
    versions = {"tensorflow": metadata.version("tensorflow"), "python": sys.version.split()[0]}
    known = json.dumps({"job": job, "machine": dataclasses.asdict(machine), "versions": versions}, indent=2)
    path = files.join(folder, hashlib.sha256(known.encode()).hexdigest()[:16] + ".json")
    if os.path.exists(path):
        with open(path) as file:
            found = json.load(file)["found"]
    else:
        least = math.ceil(config.model.min_images / (len(machine.gpus) or 1))
        found = _largest(job, minutes * 60, least)
        try:
            files.write_bytes(path, json.dumps({**json.loads(known), "found": found}, indent=2).encode())
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}). Name another folder with --out") from None
    alone = found.pop("alone")
    note = f"measured steps of {config.model.name}: {path}; delete it to measure again"
    if not machine.gpus and found["step"] > _DISTURBED * alone:
        note += f". Other programs slowed it: a step took {found['step']:.2f} s, alone it would take {alone:.2f} s"
    return Speed(**found), note


def _largest(job: dict[str, Any], seconds: float, least: int) -> dict[str, Any]:
    """Returns the fields of `Speed` for the largest batch size, and the seconds of a step without other programs."""
    batch, start = job["training"]["batch_size"], time.monotonic()
    while True:
        available = memory.available()
        timing = _measure({**job, "training": {**job["training"], "batch_size": batch}}, seconds)
        if timing and timing.memory <= _MEMORY * available:
            found = dataclasses.asdict(timing)
            del found["memory"]
            return {**found, "batch_size": batch, "seconds": time.monotonic() - start}
        if batch <= least:
            height, width = job["size"]
            raise UsageError(
                f"--preset auto: found {available / 2**30:.1f} GiB of memory, in which a step of "
                f"{job['model']['name']} at {height}x{width} does not fit even with training.batch_size={batch}; "
                "choose a smaller --size or training.crop_size, or free memory"
            )
        batch = max(least, batch // 2)


def _measure(job: dict[str, Any], seconds: float) -> StepCosts | None:
    """Runs `trainer.trial`. Returns None if the steps do not fit the memory."""
    environment = {name: value for name, value in os.environ.items() if name != TF_CONFIG}
    command = [sys.executable, "-m", "trainer.trial"]
    try:
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"--minutes {seconds / 60:g}: a few steps of {job['model']['name']} take longer; raise --minutes, or "
            "choose a smaller --size"
        ) from None
    if done.returncode in _OUT_OF_MEMORY:
        return None
    if done.returncode:
        *_, reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SegpipeError(f"--preset auto: a trial of {job['model']['name']} failed: {reason}")
    return StepCosts(**json.loads(done.stdout))
