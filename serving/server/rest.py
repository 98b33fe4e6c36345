"""TensorFlow Serving's REST API over a `ServerCore`, with limits on bodies and the status codes of `http_server.cc`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import math
import re
import time
import zlib
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.json_format import MessageToDict
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from serving.server import errors, monitoring
from serving.server.configuration import read_monitoring_path
from serving.server.core import ServerCore
from serving.server.options import ServeOptions
from serving.server.requests import find_signature
from serving.server.rest_json import BYTES_PER_VALUE, fill_request, response_json

_LOG = logging.getLogger("segpipe.serving")
_ADDRESS = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d{1,20})|/labels/(?P<label>[^/:]+))?"
    "(?P<call>:predict|:classify|:regress|/metadata|)"
)
_CALLS = ("GET", "GET/metadata", "POST:predict", "POST:classify", "POST:regress")
_SIGNATURES = "signature_def"
_HTTP = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class RestApp:
    """The ASGI application of the REST API and, if a monitoring file enables them, of the metrics."""

    def __init__(self, core: ServerCore, metrics: monitoring.Metrics, options: ServeOptions) -> None:
        """Raises UsageError for an invalid monitoring file."""
        self._core = core
        self._metrics = metrics
        self._metrics_path = read_monitoring_path(options.monitoring_config_file)
        self._timeout = options.rest_api_timeout_in_ms / 1000
        self._max_bytes = options.max_message_bytes
        self._max_requests = options.max_concurrent_requests + options.max_queue
        self._max_wait = options.max_queue_wait_in_ms / 1000
        self._in_progress = 0
        self._threads = concurrent.futures.ThreadPoolExecutor(options.rest_api_num_threads, "rest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an HTTP request."""
        self._in_progress += 1
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        finally:
            self._in_progress -= 1
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        began = time.monotonic()
        path = request.scope["raw_path"].decode("latin-1").partition("?")[0]
        if path == self._metrics_path:
            return Response(self._metrics.page(), media_type=monitoring.CONTENT_TYPE)
        if not path.startswith("/v1/"):
            return Response(status_code=404)
        try:
            body = await asyncio.wait_for(self._call(request, path, began + self._timeout), self._timeout)
            code = grpc.StatusCode.OK
        except ClientDisconnect:
            raise
        except Exception as error:
            if isinstance(error, asyncio.TimeoutError):
                error = errors.deadline_exceeded("Deadline passed before the answer was ready")
            elif not isinstance(error, errors.ServingError):
                _LOG.exception("%s %s", request.method, path)
            code, message = errors.status_of(error)
            body = json.dumps({"error": message}).encode()
        match = _ADDRESS.fullmatch(path)
        model, call = (unquote(match["name"]), match["call"][1:]) if match is not None else ("", "")
        self._metrics.request(model, call, "REST", code, time.monotonic() - began)
        return Response(body, _HTTP.get(code.name, 500), media_type="application/json")

    async def _call(self, request: Request, path: str, deadline: float) -> bytes:
        if self._in_progress > self._max_requests:
            raise errors.exhausted(f"Too many requests; {self._max_requests} are already in progress")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            _check_size(len(body), self._max_bytes)
        zipped = "gzip" in request.headers.get("content-encoding", "").lower()
        work = self._threads.submit(self._work, request.method, path, bytes(body), zipped, deadline)
        try:
            answer = asyncio.wrap_future(work)
            done, _ = await asyncio.wait([answer], timeout=self._max_wait)
            if not done and work.cancel():
                raise errors.not_run(math.inf, self._max_wait)
            return await answer
        finally:
            # Has no effect on a call that already runs.
            work.cancel()

    def _work(self, method: str, path: str, body: bytes, zipped: bool, deadline: float) -> bytes:
        """Returns the JSON body of a response. Raises ServingError, also if a model runs past the deadline."""
        spec, call = _parse_address(method, path)
        if call == ":predict":
            request = PredictRequest(model_spec=spec)
            body = _inflate(body, self._max_bytes) if zipped else body
            by_row = fill_request(
                body,
                request,
                lambda name: find_signature(self._metadata(spec)[1].signature_def, name)[1].inputs,
                self._max_bytes // BYTES_PER_VALUE,
            )
            return response_json(self._core.predict(request, deadline, interrupt=True).outputs, by_row)
        if call == "":
            return _json(_plain(self._core.model_status(GetModelStatusRequest(model_spec=spec))))
        if call == "/metadata":
            found, signatures = self._metadata(spec)
            return _json({"model_spec": _plain(found), "metadata": {_SIGNATURES: _plain(signatures)}})
        raise errors.unimplemented(f"{call[1:]} is not implemented: only predict can return class maps")

    def _metadata(self, spec: ModelSpec) -> tuple[ModelSpec, SignatureDefMap]:
        request = GetModelMetadataRequest(model_spec=spec, metadata_field=[_SIGNATURES])
        response, signatures = self._core.model_metadata(request), SignatureDefMap()
        response.metadata[_SIGNATURES].Unpack(signatures)
        return response.model_spec, signatures


def _parse_address(method: str, path: str) -> tuple[ModelSpec, str]:
    """Returns the model and the call of an address. Raises ServingError."""
    match, spec = _ADDRESS.fullmatch(path), ModelSpec()
    # ValueError: a name that is not UTF-8, or a version of more than 63 bits.
    with contextlib.suppress(ValueError):
        if match is not None and method + match["call"] in _CALLS:
            spec.name = unquote(match["name"], errors="strict")
            if match["version"] is not None:
                spec.version.value = int(match["version"])
            if match["label"] is not None:
                spec.version_label = unquote(match["label"], errors="strict")
            return spec, match["call"]
    raise errors.invalid_argument(
        f"Malformed request: {method} {path[:1000]}; expected GET /v1/models/NAME, GET /v1/models/NAME/metadata "
        "or POST /v1/models/NAME:predict, with /versions/N or /labels/LABEL after the name if needed"
    )


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise errors.exhausted(f"Received message larger than max ({size} vs. {limit})")


def _inflate(body: bytes, limit: int) -> bytes:
    """Decompresses a gzip stream, of at most `limit` bytes. Raises ServingError."""
    inflater = zlib.decompressobj(wbits=31)  # with gzip header, any window size
    try:
        content = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise _invalid_gzip(str(error)) from None
    _check_size(len(content), limit)
    if not inflater.eof or inflater.unused_data:
        raise _invalid_gzip("bytes after the stream" if inflater.eof else "a truncated stream")
    return content


def _invalid_gzip(found: str) -> errors.ServingError:
    return errors.invalid_argument(f"Content-Encoding: gzip: found {found}, expected one complete gzip stream")


def _plain(message: Any) -> dict[str, Any]:
    # Also print fields at their default. protobuf 5 renamed the option, so pass it by position.
    return MessageToDict(message, True, True)


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
