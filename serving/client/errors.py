"""What can go wrong between a client and a model server, one class for each kind."""

from __future__ import annotations

import re

import grpc

from components.errors import EXIT_USAGE, SegpipeError
from serving.client.protocol import MODELS_HEADER

# What the graph of an exported model says, inside TensorFlow's brackets: `[image[3] of 8: found a PNG that is ...]`.
_FAULT = re.compile(r"image\[(?P<place>\d+)\] of (?P<count>\d+): (?P<fault>[^\n]*?)\]?\s*(?=\n|\[\[|$)")

# TensorFlow Serving's words (model_servers/server_core.cc); a version it does not have is NOT_FOUND, a label is not.
_UNKNOWN_LABEL = "Unrecognized servable version label"


class ServerError(SegpipeError):
    """The server answered with an error, or with something that segpipe's models do not answer.

    Attributes:
        code: the status of the answer, None where the call itself went well.
        reason: the server's words.
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
    """The time allowed was up before the answer came."""


class MessageTooLargeError(ServerError):
    """A request or an answer is larger than one side allows."""


class ModelNotFoundError(ServerError):
    """The server does not serve this model, version or label.

    Attributes:
        served_models: names of the models that it has, None if it does not say.
    """

    exit_code = EXIT_USAGE
    served_models: list[str] | None = None


class RequestRefusedError(ServerError):
    """The server finds the request wrong; asking again would not help."""

    def place(self, count: int) -> int | None:
        """Returns the place of the image at fault in a batch of `count` images, or None where none is named."""
        match = _FAULT.search(self.reason)
        return int(match["place"]) if match and int(match["count"]) == count else None

    def is_about_output(self, name: str) -> bool:
        """Tells whether the model has no output of a name that the request asked for."""
        # tensorflow_serving/servables/tensorflow/predict_util.cc, PreProcessPrediction.
        return f"output tensor alias not found in signature: {name} " in self.reason

    @property
    def count(self) -> int | None:
        """How many images the server counted in the batch at fault, or None where it does not say."""
        match = _FAULT.search(self.reason)
        return int(match["count"]) if match else None

    @property
    def fault(self) -> str:
        """What is wrong with the image, without its place and without TensorFlow's names of graph nodes."""
        match = _FAULT.search(self.reason)
        return match["fault"] if match else self.reason


def is_size_limit(details: str) -> bool:
    """Tells gRPC's own limit on message size from a full queue; both are RESOURCE_EXHAUSTED."""
    return "larger than max" in details


def explain(error: grpc.RpcError, target: str, model: str, spent: str) -> ServerError:
    """Turns a status into an error that says what to do.

    Args:
        error: what gRPC raised for a call.
        target: the server's address.
        model: the model that was asked for, with its version or label.
        spent: attempts and seconds, in words.
    """
    code, details = error.code(), (error.details() or "no details").strip()
    kind, advice = _kind_and_advice(code, details, model)
    explained = kind(f"server {target}: found {code.name} ({details}) {spent}; {advice}", code, details)
    if isinstance(explained, ModelNotFoundError):
        explained.served_models = _served_models(error)
    return explained


def _served_models(error: grpc.RpcError) -> list[str] | None:
    """Returns the names that `segpipe serve` sends with the status of a model, None from another server."""
    for key, value in error.trailing_metadata() or ():
        if key == MODELS_HEADER:
            return value.decode().split("\n") if value else []
    return None


def _kind_and_advice(code: grpc.StatusCode, details: str, model: str) -> tuple[type[ServerError], str]:
    """Returns the class of an error, with what was expected and what to do."""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return ServerUnavailableError, (
                "expected the gRPC port of TensorFlow Serving or `segpipe serve`. "
                "Check the address, that the server runs, and TLS where it wants TLS"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED if is_size_limit(details):
            return MessageTooLargeError, (
                "expected messages within the limit of both sides. "
                "Send fewer images in a batch, or raise max_message_bytes where the answer is too large"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ServerBusyError, "expected room in its queue. Send less at a time, or give the model more servers"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError, "expected an answer within the deadline. Allow more time, or send fewer images"
        case grpc.StatusCode.NOT_FOUND:
            return ModelNotFoundError, f"expected {model}. Name a model, version or label that the server has"
        case grpc.StatusCode.INVALID_ARGUMENT if _UNKNOWN_LABEL in details:
            return ModelNotFoundError, f"expected {model}. Name a label that the server has"
        case grpc.StatusCode.INVALID_ARGUMENT:
            return RequestRefusedError, f"expected sound PNG or JPEG images for {model}. Send others"
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServerError, "expected TensorFlow Serving's PredictionService. Check the address"
    return ServerError, f"expected an answer of {model}. The server's log says more"
