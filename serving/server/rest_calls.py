"""What the addresses of TensorFlow Serving's REST calls mean: each is a call of a `ServerCore`.

Addresses, bodies and error texts are those of its `http_rest_api_util.cc` and `http_rest_api_handler.cc`.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import urllib.parse
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from serving.server.core import ServerCore
from serving.server.errors import ServingError, invalid_argument
from serving.server.json_requests import Infos, fill_request
from serving.server.json_responses import response_json
from serving.server.requests import DEFAULT_SIGNATURE

_MODEL = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"/v1/models/(?P<name>[^/:]+){_MODEL}:(?P<method>classify|regress|predict)", re.IGNORECASE)
_GET = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_MODEL}(?:/(?P<method>metadata))?", re.IGNORECASE)
_LARGEST_INT64 = 2**63 - 1
_SIGNATURES = "signature_def"


class RestCalls:
    """What the addresses mean: each is a call of the core."""

    def __init__(self, core: ServerCore) -> None:
        """Answers from what `core` serves."""
        self._core = core

    def answer(self, http_method: str, path: str, body: bytes, deadline: float) -> bytes:
        """Returns the JSON body of an answer. Raises ServingError, also where a model runs past the deadline."""
        match = {"POST": _POST, "GET": _GET}[http_method].fullmatch(path) if http_method in ("POST", "GET") else None
        if match is None:
            raise invalid_argument(f"Malformed request: {http_method} {path}")
        spec = _model_spec(match)
        method = _method(match)
        if http_method == "POST":
            if method == "predict":
                return self._predict(spec, body, deadline)
            if method in ("classify", "regress"):
                raise ServingError(
                    grpc.StatusCode.UNIMPLEMENTED,
                    f"{method} is not implemented: the model returns class maps, which only predict can express",
                )
            raise invalid_argument(f"Malformed request: {http_method} {path}")
        if not spec.name:
            raise invalid_argument("Missing model name in request.")
        if method == "metadata":
            return self._metadata(spec)
        return _json(self._core.model_status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec)))

    def _predict(self, spec: model_pb2.ModelSpec, body: bytes, deadline: float) -> bytes:
        request = predict_pb2.PredictRequest(model_spec=spec)
        by_row = fill_request(body, request, functools.partial(self._inputs_of, spec))
        return response_json(self._core.predict(request, deadline, interrupt=True).outputs, by_row)

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        response = self._ask_metadata(spec)
        signatures = {_SIGNATURES: _plain(_signatures(response))}
        return json.dumps({"model_spec": _plain(response.model_spec), "metadata": signatures}, indent=1).encode()

    def _ask_metadata(self, spec: model_pb2.ModelSpec) -> get_model_metadata_pb2.GetModelMetadataResponse:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[_SIGNATURES])
        return self._core.model_metadata(request)

    def _inputs_of(self, spec: model_pb2.ModelSpec, signature_name: str) -> Infos:
        signatures = _signatures(self._ask_metadata(spec)).signature_def
        name = signature_name or DEFAULT_SIGNATURE
        if name not in signatures:
            raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
        return signatures[name].inputs


def named(path: str) -> tuple[str, str]:
    """Returns the model and the method that an address names, for the metrics; empty where it names none."""
    match = _POST.fullmatch(path) or _GET.fullmatch(path)
    if match is None:
        return "", ""
    return urllib.parse.unquote(match["name"] or ""), _method(match)


def _method(match: re.Match[str]) -> str:
    """Returns the method that an address names, empty where it names none."""
    method = match["method"] or ""
    # TensorFlow Serving takes an address in any case, but goes by the method in lower case alone.
    return method if method.islower() else ""


def _model_spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=_decode("model name", match["name"] or ""))
    if match["version"] is not None:
        # A longer text than that of the largest number is not even converted.
        if len(match["version"]) > 19 or int(match["version"]) > _LARGEST_INT64:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"] is not None:
        spec.version_label = _decode("model version label", match["label"])
    return spec


def _decode(what: str, text: str) -> str:
    try:
        return urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise invalid_argument(f"Failed to decode {what}:{text}") from None


def _signatures(
    response: get_model_metadata_pb2.GetModelMetadataResponse,
) -> get_model_metadata_pb2.SignatureDefMap:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[_SIGNATURES].Unpack(signatures)
    return signatures


# protobuf 5 renamed the option that prints fields at their default.
_PRINT_DEFAULTS: dict[str, Any] = {
    name: True
    for name in ("always_print_fields_with_no_presence", "including_default_value_fields")
    if name in inspect.signature(json_format.MessageToDict).parameters
}


def _plain(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True, **_PRINT_DEFAULTS)


def _json(message: Message) -> bytes:
    return json.dumps(_plain(message), indent=1).encode()
