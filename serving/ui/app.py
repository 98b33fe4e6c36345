"""The web application of the page: its HTML, the samples, the model's description and predictions.

Predictions use the public gRPC client.
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
from components.errors import SegpipeError, UsageError
from serving.client import Client, InstanceSegmentation, errors
from serving.client.results import Answer
from serving.painting import layer

MAX_UPLOAD = 20 << 20  # bytes
_SUFFIXES = {".png", ".jpg", ".jpeg"}
_MAX_SAMPLES = 60

_HERE = Path(__file__).parent
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# HTTP status and title of each kind of error; the first match counts.
_ERRORS: tuple[tuple[type[SegpipeError], int, str], ...] = (
    (errors.RequestRefusedError, 422, "The model cannot read this image"),
    (errors.MessageTooLargeError, 413, "The image is too large"),
    (errors.ServerUnavailableError, 503, "No model server answers"),
    (errors.ServerBusyError, 503, "The model server is busy"),
    (errors.DeadlineError, 504, "The model server took too long"),
    (errors.ModelNotFoundError, 502, "The server does not serve this model"),
    (SegpipeError, 502, "The model server returned no usable answer"),
)


class Samples:
    """Images of a folder. Only files that the folder lists are opened."""

    def __init__(self, folder: str | None) -> None:
        """Takes a folder, or None for no samples. Raises UsageError if it does not exist."""
        if folder is not None and not Path(folder).is_dir():
            raise UsageError(
                f"--ui_samples {folder}: found no folder, expected one with .png, .jpg or .jpeg files. Check the path"
            )
        self._folder = folder

    def names(self) -> list[str]:
        """Returns the first file names in order, listed anew."""
        if self._folder is None:
            return []
        found = (path.name for path in Path(self._folder).iterdir() if path.suffix.lower() in _SUFFIXES)
        return sorted(found)[:_MAX_SAMPLES]

    def path(self, name: str) -> Path | None:
        """Returns the path of a sample, None if there is no such sample."""
        return Path(str(self._folder), name) if name in self.names() else None


def create_app(client: Client, samples: Samples) -> Starlette:
    """Returns the web application for a client."""
    handlers = _Handlers(client, samples)
    return Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/model", handlers.model),
            Route("/segment", handlers.segment, methods=["POST"]),
            Route("/samples/{name}", handlers.sample),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_add_headers)],
        exception_handlers={SegpipeError: _explain, _PageError: _explain},
    )


class _PageError(Exception):
    """A request that the page itself rejects: the HTTP status, a title and an explanation."""


class _Handlers:
    """The request handlers. The client blocks, so its calls run in threads."""

    def __init__(self, client: Client, samples: Samples) -> None:
        self._client = client
        self._samples = samples
        templates = Environment(loader=FileSystemLoader(_HERE), autoescape=True)
        self._template = templates.get_template("page.html")

    def page(self, request: Request) -> Response:
        """Returns the page with the current samples."""
        return HTMLResponse(self._template.render(samples=self._samples.names(), max_upload=MAX_UPLOAD))

    def model(self, request: Request) -> Response:
        """Returns the description of the served model."""
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
        """Returns a sample image."""
        return FileResponse(self._sample_path(request.path_params["name"]))

    async def segment(self, request: Request) -> Response:
        """Segments the image in the body, or the sample of `?sample=`."""
        name = request.query_params.get("sample")
        if name is None:
            data = await _read_body(request)
        else:
            data = await run_in_threadpool(lambda: self._sample_path(name).read_bytes())
        return JSONResponse(await run_in_threadpool(lambda: _prediction(self._client.segment(data), data)))

    def _sample_path(self, name: str) -> Path:
        path = self._samples.path(name)
        if path is None:
            raise _PageError(404, "No such sample", "Choose one of the samples on the page.")
        return path


async def _read_body(request: Request) -> bytes:
    """Returns the body of a request. Raises _PageError, without reading on, if it is too large."""
    length = request.headers.get("content-length", "")
    _check_size(int(length) if length.isdigit() else 0)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        _check_size(len(body))
    return bytes(body)


def _check_size(size: int) -> None:
    if size > MAX_UPLOAD:
        limit = f"{MAX_UPLOAD >> 20} MiB"
        detail = f"Expected at most {limit}. Choose a smaller file, or save it as JPEG."
        raise _PageError(413, "The image is too large", detail)


def _prediction(answer: Answer, image: bytes) -> dict[str, Any]:
    """Returns the answer for an encoded image as JSON for the page: a bar for each class, or each instance."""
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
        {"name": name.replace("_", " "), "color": _hex(color), "value": value}
        for (name, value), color in zip(values, colors, strict=True)
    ]
    return {
        "mask": _data_url(layer(answer, (height, width))),
        "ignored_color": ignored,
        "unit": unit,
        "classes": sorted(bars, key=lambda bar: -bar["value"]),
        "confidence": answer.confidence,
        "model": answer.model,
        "version": answer.version,
        "seconds": answer.seconds,
        "size": f"{width} x {height}",
    }


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _data_url(pixels: np.ndarray) -> str:
    """Returns RGBA pixels, uint8 [H, W, 4], as a PNG in a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


async def _explain(request: Request, error: Exception) -> Response:
    if isinstance(error, _PageError):
        status, title, detail = error.args
    else:
        status, title = next((status, title) for kind, status, title in _ERRORS if isinstance(error, kind))
        detail = str(error)
    return JSONResponse({"title": title, "detail": detail}, status)


async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response
