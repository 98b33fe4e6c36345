"""A refusal with the status code and the text that TensorFlow Serving gives for it.

Whoever answers a call, gRPC or REST, turns one of these into its own kind of error.
"""

from __future__ import annotations

import grpc


class ServingError(Exception):
    """A call that cannot be answered.

    Attributes:
        code: the gRPC status of the answer.
        message: what the caller reads.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> ServingError:
    """Returns an error for a request that is wrong whatever the server's state."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """Returns an error for a model or version that the server does not have."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """Returns an error for a request that the model or the configuration does not allow."""
    return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)


def deadline_exceeded() -> ServingError:
    """Returns an error for a request whose deadline passed before its turn came."""
    return ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline passed while the request waited; it was not run")


def message_too_large(size: int, most: int) -> ServingError:
    """Returns an error for a request of more bytes than are taken."""
    return ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Received message larger than max ({size} vs. {most})")


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Returns the status code and text that say what an exception says.

    Args:
        error: a ServingError, an error of TensorFlow's (which carries the number of a status code), or any other.
    """
    if isinstance(error, ServingError):
        return error.code, error.message
    # A session wraps its native error in one whose text adds the Python trace of the graph's making.
    native = error.__context__ if isinstance(error.__context__, type(error)) else error
    code = _CODES.get(getattr(native, "error_code", None) or 2, grpc.StatusCode.UNKNOWN)
    return code, str(getattr(native, "message", None) or f"{type(error).__name__}: {error}")
