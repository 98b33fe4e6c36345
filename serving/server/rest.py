"""TensorFlow Serving's REST calls over HTTP: bodies within bounds, calls in threads, codes as `http_server.cc`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Awaitable
from typing import TypeVar

import grpc
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from serving.server import monitoring
from serving.server.core import ServerCore
from serving.server.errors import ServingError, message_too_large, status_of
from serving.server.gzip_bodies import inflate
from serving.server.rest_calls import RestCalls, named

_LOG = logging.getLogger(__name__)
_Value = TypeVar("_Value")
_CLIENT_CLOSED_REQUEST = 499
_HTTP = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: _CLIENT_CLOSED_REQUEST,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


@dataclasses.dataclass(frozen=True)
class RestOptions:
    """Bounds of the REST calls.

    Attributes:
        timeout: seconds from a request's arrival to its deadline.
        max_body_bytes: largest body of a request, as it is sent and as it is inflated.
        num_threads: requests that are worked on at once; more wait for a thread.
        max_requests: requests that are read, worked on or wait; more are refused at once.
        monitoring_path: where metrics are served, or None where they are not.
    """

    timeout: float = 30.0
    max_body_bytes: int = 64 * 1024 * 1024
    num_threads: int = dataclasses.field(default_factory=lambda: 4 * (os.cpu_count() or 1))
    max_requests: int = 128
    monitoring_path: str | None = None


def create_app(core: ServerCore, metrics: monitoring.Metrics, options: RestOptions) -> Starlette:
    """Returns the web application of a server.

    Args:
        core: answers the calls.
        metrics: counts them.
        options: bounds.
    """
    routes: list[BaseRoute] = [Route("/{path:path}", _RestApi(core, metrics, options))]
    if options.monitoring_path is not None:

        def page(request: Request) -> Response:
            return Response(metrics.page(), media_type=monitoring.CONTENT_TYPE)

        routes.insert(0, Route(options.monitoring_path, page))
    return Starlette(routes=routes)


class _RestApi:
    """The application behind every address that is no page: reads bodies, runs calls in threads."""

    def __init__(self, core: ServerCore, metrics: monitoring.Metrics, options: RestOptions) -> None:
        self._calls = RestCalls(core)
        self._metrics = metrics
        self._options = options
        self._in_progress = 0
        self._threads = concurrent.futures.ThreadPoolExecutor(options.num_threads, "rest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self._in_progress += 1
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        finally:
            self._in_progress -= 1
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        began = time.monotonic()
        path = request.scope["raw_path"].decode("latin-1").partition("?")[0]
        if not path.lower().startswith("/v1/"):
            return Response(status_code=404)
        model, method = named(path)
        code, body = await self._call(request, path, began + self._options.timeout)
        self._metrics.request(model, method, "REST", code, time.monotonic() - began)
        return Response(body, _HTTP.get(code, 500), media_type="application/json")

    async def _call(self, request: Request, path: str, deadline: float) -> tuple[grpc.StatusCode, bytes]:
        try:
            if self._in_progress > self._options.max_requests:
                raise ServingError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"Too many requests; {self._options.max_requests} are in progress already",
                )
            body = await _until(deadline, self._body(request), "the request's body arrived")
            zipped = "gzip" in request.headers.get("content-encoding", "").lower()
            work = functools.partial(self._work, request.method, path, body, zipped, deadline)
            # What still waits for a thread at the deadline is not begun; what has begun ends without its caller.
            answer = asyncio.get_running_loop().run_in_executor(self._threads, work)
            return grpc.StatusCode.OK, await _until(deadline, answer, "the answer was ready")
        except ClientDisconnect:
            raise
        except Exception as error:
            code, message = status_of(error)
            if not isinstance(error, ServingError):
                _LOG.exception("%s %s", request.method, path)
            return code, _error(message)

    def _work(self, method: str, path: str, body: bytes, zipped: bool, deadline: float) -> bytes:
        if zipped:
            body = inflate(body, self._options.max_body_bytes)
        return self._calls.answer(method, path, body, deadline)

    async def _body(self, request: Request) -> bytes:
        most = self._options.max_body_bytes
        chunks = []
        size = 0
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise message_too_large(size, most)
        return b"".join(chunks)


async def _until(deadline: float, work: Awaitable[_Value], end: str) -> _Value:
    """Returns what comes of some work. Raises ServingError where that takes past the deadline."""
    try:
        return await asyncio.wait_for(work, deadline - time.monotonic())
    except asyncio.TimeoutError:
        raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, f"Deadline passed before {end}") from None


def _error(message: str) -> bytes:
    return json.dumps({"error": message}).encode()
