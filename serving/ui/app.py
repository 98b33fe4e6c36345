"""What the page answers: itself, the samples, the model's description, and what the model sees in pictures.

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

from components import drawing
from components.class_map import Color
from components.errors import SegpipeError
from serving.client import (
    Client,
    DeadlineError,
    InstanceSegmentation,
    MessageTooLargeError,
    ModelNotFoundError,
    RequestRefusedError,
    ServerBusyError,
    ServerUnavailableError,
)
from serving.client.results import Answer
from serving.painting import layer
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
                "mask_ap": description.metrics.get("mask_ap"),
            }
        )

    def sample(self, request: Request) -> Response:
        """One of the samples."""
        path = self._samples.path(request.path_params["name"])
        return FileResponse(path) if path is not None else _no_sample()

    async def segment(self, request: Request) -> Response:
        """What the model sees in the image in the body, or in the sample of `?sample=`."""
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
        return JSONResponse(await run_in_threadpool(lambda: _shown(self._client.segment(data), data)))


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


def _shown(answer: Answer, image: bytes) -> dict[str, Any]:
    """Returns an answer as the page's script reads it, with a bar for each class, or for each instance.

    Args:
        answer: what the model sees.
        image: the encoded image.
    """
    legend = answer.legend
    ignored = None
    if isinstance(answer, InstanceSegmentation):
        unit, values = "instance", list(zip(answer.names, answer.scores.tolist(), strict=True))
        colors = drawing.instance_colors(len(values))
        height, width = answer.masks.shape[1:] if len(values) else drawing.photo(image).shape[:2]
    else:
        unit, values, colors = "class", list(answer.class_share.items()), list(legend.colors)
        height, width = answer.class_map.shape
        ignored = None if legend.ignore_index is None else _hex(colors[legend.ignore_index])
    bars = [
        {"name": name.replace("_", " "), "color": _hex(color), "share": value}
        for (name, value), color in zip(values, colors, strict=True)
    ]
    return {
        "mask": _data_address(layer(answer, (height, width))),
        "ignored_color": ignored,
        "unit": unit,
        "classes": sorted(bars, key=lambda each: -each["share"]),
        "confidence": answer.confidence,
        "model": answer.model,
        "version": answer.version,
        "seconds": answer.seconds,
        "size": f"{width} x {height}",
    }


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _data_address(pixels: np.ndarray) -> str:
    """Returns RGBA pixels, uint8 [H, W, 4], as a PNG in a data address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
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
