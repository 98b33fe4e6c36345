"""Keeps the console for people: everything that TensorFlow, TFX and Beam print goes to a log file."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from components import files


@contextlib.contextmanager
def captured(path: str) -> Iterator[TextIO]:
    """Sends this process's standard output and error to a file, C++ libraries' included.

    Args:
        path: the log file; new lines are added to its end.

    Yields:
        The console as it was, to write to on purpose.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with open(path, "a", buffering=1) as log, os.fdopen(os.dup(saved[0]), "w", buffering=1) as console:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield console
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            logging.getLogger().handlers.clear()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for descriptor in saved:
                os.close(descriptor)


@contextlib.contextmanager
def captured_anywhere(path: str) -> Iterator[TextIO]:
    """Captures as `captured` does, to a file that may lie on an object store.

    There it is written when the block ends. A process that crashes prints its stack to the console, as a killed one's
    file may be lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "log.txt") if files.is_remote(path) else path
        os.makedirs(os.path.dirname(local), exist_ok=True)
        try:
            with captured(local) as console:
                faulthandler.enable(console)
                try:
                    yield console
                except BaseException:
                    traceback.print_exc()
                    raise
                finally:
                    faulthandler.disable()
        finally:
            if files.is_remote(path):
                earlier = files.read_bytes(path) if files.exists(path) else b""
                files.write_bytes(path, earlier + Path(local).read_bytes())


def log_everything() -> None:
    """Sets Python's loggers so that the log file gets INFO from every package, with times."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
