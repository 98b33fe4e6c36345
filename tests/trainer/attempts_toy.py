"""Runs one attempt of the tiny training; in the second epoch, it sends itself a signal or waits for a file."""

import logging
import os
import pathlib
import signal
import sys
import time

import numpy as np
import training_toy as toy

from components.errors import SegpipeError
from trainer import attempts
from trainer.training import train


class InSecondEpoch(toy.Printer):
    """Prints progress, and performs an action once in the second epoch."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if not self.action or record.progress["epoch"] < 2:
            return
        action, self.action = self.action, ""
        if action.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[action])
        while not action.startswith("SIG") and not os.path.exists(action):
            time.sleep(0.05)


def main(data: str, folder: str, output: str, action: str, watch: str) -> None:
    """Trains three epochs.

    Args:
        data: folder of the splits.
        folder: folder of the training's checkpoints.
        output: file for the weights.
        action: the name of a signal, a file to wait for, or an empty string.
        watch: `attempts.WATCH_SECONDS`.
    """
    attempts.ALIVE_SECONDS, attempts.WATCH_SECONDS = 0.1, float(watch)
    progress = logging.getLogger("segpipe.progress")
    progress.setLevel(logging.INFO)
    progress.addHandler(InSecondEpoch(action))
    root = pathlib.Path(data)
    with attempts.begin(folder, pathlib.Path(output).stem) as checkpoints:
        trained = train(toy.job(root, root / "logs" / pathlib.Path(output).stem, keep="best"), checkpoints)
        np.savez(output, *toy.weights(trained))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SegpipeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
