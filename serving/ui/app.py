"""What the page answers: itself, the samples, the model's description, and class maps for pictures.

Every prediction goes over the same gRPC client that users have.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from components.errors import SegpipeError
from serving.client import (
    Client,
    DeadlineError,
    MessageTooLargeError,
    ModelNotFoundError,
    RequestRefusedError,
    Segmentation,
    ServerBusyError,
    ServerUnavailableError,
)
from serving.ui.samples import Samples

MAX_UPLOAD = 20 << 20  # bytes

_HERE = Path(__file__).parent
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# Status and heading for each kind of error; the first that fits.
_ERRORS: tuple[tuple[type[SegpipeError], int, str], ...] = (
    (RequestRefusedError, 422, "The model cannot read this image"),
    (MessageTooLargeError, 413, "The image is too large"),
    (ServerUnavailableError, 503, "No model server answers"),
    (ServerBusyError, 503, "The model server is busy"),
    (DeadlineError, 504, "The model server took too long"),
    (ModelNotFoundError, 502, "The server does not serve this model"),
    (SegpipeError, 502, "The model server gave no usable answer"),
)


def create_app(client: Client, samples: Samples) -> Starlette:
    """Returns the web application around a client."""
    handlers = _Handlers(client, samples)
    return Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/model", handlers.model),
            Route("/segment", handlers.segment, methods=["POST"]),
            Route("/samples/{name}", handlers.sample),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_secured)],
        exception_handlers={SegpipeError: _explained},
    )


class _Handlers:
    """Answers of the page; a client's questions block, so they are asked in threads."""

    def __init__(self, client: Client, samples: Samples) -> None:
        self._client = client
        self._samples = samples
        templates = Environment(loader=FileSystemLoader(_HERE), autoescape=True)
        self._template = templates.get_template("page.html")

    def page(self, request: Request) -> Response:
        """The page, with the samples that the folder holds now."""
        return HTMLResponse(self._template.render(samples=self._samples.names(), max_upload=MAX_UPLOAD))

    def model(self, request: Request) -> Response:
        """What the served model says of itself."""
        description = self._client.describe()
        height, width = description.input_size
        return JSONResponse(
            {
                "model": description.model,
                "version": description.version,
                "classes": description.class_map.num_classes,
                "input": f"{width} x {height}",
                "mean_iou": description.metrics.get("mean_iou"),
            }
        )

    def sample(self, request: Request) -> Response:
        """One of the samples."""
        path = self._samples.path(request.path_params["name"])
        return FileResponse(path) if path is not None else _no_sample()

    async def segment(self, request: Request) -> Response:
        """The class map of the image in the body, or of the sample in `?sample=`."""
        name = request.query_params.get("sample")
        if name is not None:
            path = await run_in_threadpool(self._samples.path, name)
            if path is None:
                return _no_sample()
            data = await run_in_threadpool(path.read_bytes)
        else:
            uploaded = await _body(request)
            if uploaded is None:
                return _too_large()
            data = uploaded
        return JSONResponse(await run_in_threadpool(lambda: _shown(self._client.segment(data))))


async def _body(request: Request) -> bytes | None:
    """Returns the request's body, None where it is larger than allowed; what is beyond is not read."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_UPLOAD:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_UPLOAD:
            return None
    return bytes(body)


def _shown(answer: Segmentation) -> dict[str, Any]:
    """Returns an answer as the page's script reads it; classes are in order of their share."""
    legend = answer.legend
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in legend.colors]
    classes = [
        {"name": name.replace("_", " "), "color": color, "share": answer.class_share[name]}
        for name, color in zip(legend.names, colors, strict=True)
    ]
    height, width = answer.class_map.shape
    return {
        "mask": _data_address(answer),
        "ignored_color": None if legend.ignore_index is None else colors[legend.ignore_index],
        "classes": sorted(classes, key=lambda each: -each["share"]),
        "confidence": answer.confidence,
        "model": answer.model,
        "version": answer.version,
        "seconds": answer.seconds,
        "size": f"{width} x {height}",
    }


def _data_address(answer: Segmentation) -> str:
    """Returns the coloured class map as a PNG in a data address; the ignored class is transparent."""
    opaque = answer.class_map != answer.legend.ignore_index
    alpha = (opaque * np.uint8(255)).astype(np.uint8)
    pixels = np.dstack([answer.legend.colorize(answer.class_map), alpha])
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _too_large() -> Response:
    limit = f"{MAX_UPLOAD >> 20} MiB"
    return _error(
        413, "The image is too large", f"Expected at most {limit}. Choose a smaller file, or save it as JPEG."
    )


def _no_sample() -> Response:
    return _error(404, "There is no such sample", "Choose one of the samples on the page.")


def _error(status: int, title: str, detail: str) -> Response:
    return JSONResponse({"title": title, "detail": detail}, status)


async def _explained(request: Request, error: Exception) -> Response:
    status, title = next((status, title) for kind, status, title in _ERRORS if isinstance(error, kind))
    return _error(status, title, str(error))


async def _secured(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response
