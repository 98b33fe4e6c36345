"""The errors that segpipe explains to the user, with their exit codes.

Every message names the file or field, what was found, what was expected and what to do.
"""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_BLESSED = 3
EXIT_DATA_REJECTED = 4
EXIT_DRIFTED = 5
# Exit code of shells and Typer after Ctrl-C: 128 plus the signal's number.
EXIT_INTERRUPTED = 130


class SegpipeError(Exception):
    """An error that the user can understand without a traceback."""

    exit_code = EXIT_FAILED
    # Whether a retry would fail in the same way. Instances may override it.
    permanent = False


class UsageError(SegpipeError):
    """A wrong command line, configuration file, class map or path."""

    exit_code = EXIT_USAGE
    permanent = True


class DataRejectedError(SegpipeError):
    """The data is readable, but not good enough to train on."""

    exit_code = EXIT_DATA_REJECTED
    permanent = True


class WorkdirBusyError(SegpipeError):
    """Another run holds the work directory."""


class ReleaseError(SegpipeError):
    """A release of a served model that the servers or the release rules refuse."""
