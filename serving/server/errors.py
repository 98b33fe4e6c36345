"""A refusal with a gRPC status code; gRPC and REST each turn it into their own kind of error."""

from __future__ import annotations

import functools
import math

import grpc


class ServingError(Exception):
    """A call that cannot be answered: the gRPC status code and the message for the caller."""

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
    """Returns the error for a request that was not run within the `left` seconds to its deadline, or `max_wait`."""
    if left <= max_wait:
        return deadline_exceeded("Deadline passed while the request waited; it was not run")
    text = f"The request waited {max_wait * 1000:.0f} ms for its turn, the most that --max_queue_wait_in_ms allows"
    return exhausted(f"{text}; try again later")


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Returns the status code and text of a ServingError, a TensorFlow error or any other exception."""
    if isinstance(error, ServingError):
        return error.code, error.message
    # A session wraps its native error in one whose text adds the Python trace of the graph's making.
    native = error.__context__ if isinstance(error.__context__, type(error)) else error
    code = _CODES.get(getattr(native, "error_code", None) or 2, grpc.StatusCode.UNKNOWN)
    return code, str(getattr(native, "message", None) or f"{type(error).__name__}: {error}")
