"""TensorFlow Serving's REST calls of a `ServerCore`: bodies within bounds, codes as in `http_server.cc`."""

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

from serving.server import monitoring
from serving.server.core import ServerCore
from serving.server.errors import (
    ServingError,
    deadline_exceeded,
    exhausted,
    invalid_argument,
    not_run,
    status_of,
    unimplemented,
)
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
    """The ASGI application of a server's REST calls and, if a monitoring file says so, of its metrics."""

    def __init__(self, core: ServerCore, metrics: monitoring.Metrics, options: ServeOptions) -> None:
        """Raises UsageError for a wrong monitoring file."""
        self._core = core
        self._metrics = metrics
        self._metrics_path = monitoring.read_monitoring_path(options.monitoring_config_file)
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
                error = deadline_exceeded("Deadline passed before the answer was ready")
            elif not isinstance(error, ServingError):
                _LOG.exception("%s %s", request.method, path)
            code, message = status_of(error)
            body = json.dumps({"error": message}).encode()
        match = _ADDRESS.fullmatch(path)
        model, call = (unquote(match["name"]), match["call"][1:]) if match is not None else ("", "")
        self._metrics.request(model, call, "REST", code, time.monotonic() - began)
        return Response(body, _HTTP.get(code.name, 500), media_type="application/json")

    async def _call(self, request: Request, path: str, deadline: float) -> bytes:
        if self._in_progress > self._max_requests:
            raise exhausted(f"Too many requests; {self._max_requests} are in progress already")
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
                raise not_run(math.inf, self._max_wait)
            return await answer
        finally:
            # A call that has no thread by the deadline is not begun; one that has begun ends without its caller.
            work.cancel()

    def _work(self, method: str, path: str, body: bytes, zipped: bool, deadline: float) -> bytes:
        """Returns the JSON body of an answer. Raises ServingError, also if a model runs past the deadline."""
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
        raise unimplemented(
            f"{call[1:]} is not implemented: the model returns class maps, which only predict can express"
        )

    def _metadata(self, spec: ModelSpec) -> tuple[ModelSpec, SignatureDefMap]:
        request = GetModelMetadataRequest(model_spec=spec, metadata_field=[_SIGNATURES])
        response, signatures = self._core.model_metadata(request), SignatureDefMap()
        response.metadata[_SIGNATURES].Unpack(signatures)
        return response.model_spec, signatures


def _parse_address(method: str, path: str) -> tuple[ModelSpec, str]:
    """Returns the model and the call that an address names. Raises ServingError."""
    match, spec = _ADDRESS.fullmatch(path), ModelSpec()
    # A ValueError is a name that is not UTF-8, or a version of more than 63 bits.
    with contextlib.suppress(ValueError):
        if match is not None and method + match["call"] in _CALLS:
            spec.name = unquote(match["name"], errors="strict")
            if match["version"] is not None:
                spec.version.value = int(match["version"])
            if match["label"] is not None:
                spec.version_label = unquote(match["label"], errors="strict")
            return spec, match["call"]
    raise invalid_argument(
        f"Malformed request: {method} {path[:1000]}; expected GET /v1/models/NAME, GET /v1/models/NAME/metadata "
        "or POST /v1/models/NAME:predict, with /versions/N or /labels/LABEL after the name if needed"
    )


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise exhausted(f"Received message larger than max ({size} vs. {most})")


def _inflate(body: bytes, most: int) -> bytes:
    """Returns what a gzip stream holds, of which no more than `most` bytes are inflated. Raises ServingError."""
    inflater = zlib.decompressobj(wbits=31)  # a gzip header, and windows of any size
    try:
        content = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise invalid_argument(f"Content-Encoding: gzip: found {error}, expected one whole gzip stream") from None
    _check_size(len(content), most)
    if not inflater.eof or inflater.unused_data:
        found = "bytes behind the stream" if inflater.eof else "a stream that is cut short"
        raise invalid_argument(f"Content-Encoding: gzip: found {found}, expected one whole gzip stream")
    return content


def _plain(message: Any) -> dict[str, Any]:
    # Fields at their default are printed too. protobuf 5 renamed the option, so it is given by position.
    return MessageToDict(message, True, True)


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
