"""Errors with a gRPC status code, which the gRPC and REST layers turn into their own kind of response."""

from __future__ import annotations

import functools
import math

import grpc


class ServingError(Exception):
    """A failed call: its gRPC status code and the message for the caller."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# Each takes the message and returns the error.
invalid_argument = functools.partial(ServingError, grpc.StatusCode.INVALID_ARGUMENT)
not_found = functools.partial(ServingError, grpc.StatusCode.NOT_FOUND)
failed_precondition = functools.partial(ServingError, grpc.StatusCode.FAILED_PRECONDITION)
exhausted = functools.partial(ServingError, grpc.StatusCode.RESOURCE_EXHAUSTED)
deadline_exceeded = functools.partial(ServingError, grpc.StatusCode.DEADLINE_EXCEEDED)
unimplemented = functools.partial(ServingError, grpc.StatusCode.UNIMPLEMENTED)
shutting_down = functools.partial(ServingError, grpc.StatusCode.UNAVAILABLE, "The server is shutting down")


def not_run(left: float, max_wait: float = math.inf) -> ServingError:
    """Returns the error for a request that waited until its deadline, `left` seconds, or for `max_wait` seconds."""
    if left <= max_wait:
        return deadline_exceeded("Deadline passed while the request waited; it was not run")
    limit = f"{max_wait * 1000:.0f} ms for its turn, the limit of --max_queue_wait_in_ms"
    return exhausted(f"The request waited {limit}; try again later")


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Returns the status code and text of a ServingError, a TensorFlow error or any other exception."""
    if isinstance(error, ServingError):
        return error.code, error.message
    # TensorFlow's session re-raises its native error with a Python trace in the text; the context is the original.
    native = error.__context__ if isinstance(error.__context__, type(error)) else error
    code = _CODES.get(getattr(native, "error_code", None) or 2, grpc.StatusCode.UNKNOWN)
    return code, str(getattr(native, "message", None) or f"{type(error).__name__}: {error}")
