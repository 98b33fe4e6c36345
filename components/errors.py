"""The mistakes segpipe knows how to explain, one class for each kind, with the exit code it ends in.

Every message names the file or field, what was found, what was expected and what to do.
"""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_BLESSED = 3
EXIT_DATA_REJECTED = 4
EXIT_DRIFTED = 5
# What shells and Typer make of Ctrl-C: 128 and the signal's number.
EXIT_INTERRUPTED = 130


class SegpipeError(Exception):
    """A failure with an explanation for the user; a traceback would not add to it."""

    exit_code = EXIT_FAILED
    # Whether the same run would fail again in the same way. An instance may say otherwise.
    permanent = False


class UsageError(SegpipeError):
    """A wrong command line, configuration file, class map or path."""

    exit_code = EXIT_USAGE
    permanent = True


class DataRejectedError(SegpipeError):
    """The data was read and is not good enough to train on."""

    exit_code = EXIT_DATA_REJECTED
    permanent = True


class WorkdirBusyError(SegpipeError):
    """Another run holds the work directory."""


class ReleaseError(SegpipeError):
    """A release of a served model that the servers or the rules of releases do not allow."""
