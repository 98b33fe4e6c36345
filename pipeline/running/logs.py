"""Redirects everything that TensorFlow, TFX and Beam print to a log file, so that the console stays readable."""

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
    """Redirects this process's standard output and error, including those of C++ libraries, to the end of a file.

    Yields:
        The original standard output.
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
    """Like `captured`, with a file that may be on an object store, which is written when the block ends.

    A crash prints its stack to the console, because the file of a killed process may be lost.
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
    """Configures Python's loggers to write INFO messages of every package to the log file, with times."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
