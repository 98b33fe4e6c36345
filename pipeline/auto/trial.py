"""Measures a network's steps on this machine in a process of its own, and finds the batch that fits.

What was measured is remembered in the work directory, so that a repeated run has the same settings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
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
from trainer.trial import OUT_OF_MEMORY, Timing

# What steps may take of the available memory; the decoded splits take at most `training.memory_fraction` each.
_MEMORY = 0.5
# How a process ends that runs out of memory: by its own word, by the kernel, or because C++ could not allocate.
# TensorFlow 2.21 then may use the missing memory all the same.
_OUT_OF_MEMORY = (OUT_OF_MEMORY, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV)
# Steps are slower than they could be by this factor: other programs use the processor.
_DISTURBED = 1.3


def measure(config: RunConfig, classes: int, machine: MachineFacts, folder: str, minutes: float) -> tuple[Speed, str]:
    """Returns the speed of a network at the largest batch that fits, and a note on the measurement.

    Args:
        config: the run; its batch size is tried first, and then its halves.
        classes: number of classes.
        machine: where it is measured.
        folder: where measurements are remembered.
        minutes: the time budget; a trial that takes as long is stopped.

    Raises:
        UsageError: not even one image fits, the steps take too long, or the settings do not fit each other.
        SegpipeError: the trial failed, or the folder cannot be written.
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
        found = _largest(job, minutes * 60)
        try:
            files.write_bytes(path, json.dumps({**json.loads(known), "found": found}, indent=2).encode())
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}). Name another folder with --out") from None
    alone = found.pop("alone")
    note = f"measured steps of {config.model.name}: {path}; delete it to measure anew"
    if not machine.gpus and found["step"] > _DISTURBED * alone:
        note += (
            f". Other programs slowed it: a step took {found['step']:.2f} s, and alone would take about {alone:.2f} s"
        )
    return Speed(**found), note


def _largest(job: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Returns the fields of `Speed`, and the seconds of a step alone."""
    batch, began = job["training"]["batch_size"], time.monotonic()
    while True:
        available = memory.available()
        timing = _try({**job, "training": {**job["training"], "batch_size": batch}}, seconds)
        if timing and timing.memory <= _MEMORY * available:
            found = dataclasses.asdict(timing)
            del found["memory"]
            return {**found, "batch_size": batch, "seconds": time.monotonic() - began}
        if batch == 1:
            height, width = job["size"]
            raise UsageError(
                f"--preset auto: found {available / 2**30:.1f} GiB of memory, in which no step of "
                f"{job['model']['name']} at {height}x{width} fits even with one image; choose a smaller --size or "
                "training.crop_size, or free memory"
            )
        batch //= 2


def _try(job: dict[str, Any], seconds: float) -> Timing | None:
    """Returns what the steps took, or None if they do not fit the memory."""
    environment = {name: value for name, value in os.environ.items() if name != TF_CONFIG}
    command = [sys.executable, "-m", "trainer.trial"]
    try:
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"--minutes {seconds / 60:g}: a few steps of {job['model']['name']} alone take longer; raise --minutes, or "
            "choose a smaller --size"
        ) from None
    if done.returncode in _OUT_OF_MEMORY:
        return None
    if done.returncode:
        *_, reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SegpipeError(f"--preset auto: a trial of {job['model']['name']} failed: {reason}")
    return Timing(**json.loads(done.stdout))
