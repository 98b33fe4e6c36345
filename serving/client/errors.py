"""The errors of a client, one class for each kind."""

from __future__ import annotations

import re

import grpc

from components.errors import EXIT_USAGE, SegpipeError
from serving.client.protocol import MODELS_HEADER

# The error of an exported model's graph, inside TensorFlow's brackets: `[image[3] of 8: found a PNG that is ...]`.
_ISSUE = re.compile(r"image\[(?P<index>\d+)\] of (?P<count>\d+): (?P<issue>[^\n]*?)\]?\s*(?=\n|\[\[|$)")

# From TensorFlow Serving's model_servers/server_core.cc. Unlike an unknown version, it is not NOT_FOUND.
_UNKNOWN_LABEL = "Unrecognized servable version label"


class ServerError(SegpipeError):
    """The server returned an error, or a response that segpipe's models do not return.

    Attributes:
        code: the gRPC status; None if the call itself succeeded.
        reason: the server's message.
    """

    def __init__(self, message: str, code: grpc.StatusCode | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class ServerUnavailableError(ServerError):
    """No server answers at the address."""


class ServerBusyError(ServerError):
    """The server's queue stayed full through every attempt."""


class DeadlineError(ServerError):
    """The deadline passed before the response arrived."""


class MessageTooLargeError(ServerError):
    """A request or a response is larger than client or server allow."""


class ModelNotFoundError(ServerError):
    """The server does not serve this model, version or label.

    Attributes:
        served_models: names of the served models; None if the server does not list them.
    """

    exit_code = EXIT_USAGE
    served_models: list[str] | None = None


class RequestRefusedError(ServerError):
    """The server rejected the request as invalid; a retry would not help.

    Attributes:
        issue: what is wrong with the image, without its index and TensorFlow's node names.
        index: the image's index in the rejected batch; None if the message does not contain it.
        count: the number of images in the rejected batch; None if the message does not contain it.
    """

    def __init__(self, message: str, code: grpc.StatusCode | None = None, reason: str = "") -> None:
        super().__init__(message, code, reason)
        match = _ISSUE.search(reason)
        self.issue = match["issue"] if match else reason
        self.index: int | None = int(match["index"]) if match else None
        self.count: int | None = int(match["count"]) if match else None

    def is_about_output(self, name: str) -> bool:
        """Returns whether the model lacks the requested output `name`."""
        # tensorflow_serving/servables/tensorflow/predict_util.cc, PreProcessPrediction.
        return f"output tensor alias not found in signature: {name} " in self.reason


def is_size_limit(details: str) -> bool:
    """Returns whether a RESOURCE_EXHAUSTED is gRPC's limit on message size, not a full queue."""
    return "larger than max" in details


def explain(error: grpc.RpcError, target: str, model: str, spent: str) -> ServerError:
    """Converts the gRPC error of a call to one that says what to do.

    `model` is the requested model, with its version or label; `spent` are attempts and seconds, as text.
    """
    code, details = error.code(), (error.details() or "no details").strip()
    kind, advice = _kind_and_advice(code, details, model)
    explained = kind(f"server {target}: found {code.name} ({details}) {spent}; {advice}", code, details)
    if isinstance(explained, ModelNotFoundError):
        for key, value in error.trailing_metadata() or ():
            if key == MODELS_HEADER:
                explained.served_models = value.decode().split("\n") if value else []
    return explained


def _kind_and_advice(code: grpc.StatusCode, details: str, model: str) -> tuple[type[ServerError], str]:
    """Returns the class of an error, what was expected and what to do."""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return ServerUnavailableError, (
                "expected the gRPC port of TensorFlow Serving or `segpipe serve`. "
                "Check the address, that the server runs, and whether it needs TLS"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED if is_size_limit(details):
            return MessageTooLargeError, (
                "expected messages within the limits of client and server. "
                "Send fewer images in a batch, or raise max_message_bytes if the response is too large"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ServerBusyError, "expected room in its queue. Send fewer requests at a time, or add servers"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError, "expected a response within the deadline. Raise the deadline, or send fewer images"
        case grpc.StatusCode.NOT_FOUND:
            return ModelNotFoundError, f"expected {model}. Name a model, version or label that the server has"
        case grpc.StatusCode.INVALID_ARGUMENT if _UNKNOWN_LABEL in details:
            return ModelNotFoundError, f"expected {model}. Name a label that the server has"
        case grpc.StatusCode.INVALID_ARGUMENT:
            return RequestRefusedError, f"expected valid PNG or JPEG images for {model}. Send other images"
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServerError, "expected TensorFlow Serving's PredictionService. Check the address"
    return ServerError, f"expected a response of {model}. See the server's log"
