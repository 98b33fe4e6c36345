"""Writes gRPC requests mirrored by a proxy for `segpipe watch`: `python -m serving.request_sink`.

TensorFlow Serving's open-source build has no request logger (`ServerRequestLogger::CreateUpdateRequestLocked` in
tensorflow_serving/core/server_request_logger.cc at 9d981c5 refuses `logging_config` without a creator, and
model_servers/server.cc sets none). So nginx sends copies of sampled gRPC requests here. TensorFlow is not imported.
"""

from __future__ import annotations

import argparse
import logging
import signal
import struct
import sys
import zlib
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from components.errors import SegpipeError
from serving.http_server import HttpServer
from serving.request_log import RequestLog

_FRAME = struct.Struct(">BI")
_MAX_MESSAGE_BYTES = 65 << 20
_MAX_PORT = 65535
_GZIP_OR_ZLIB = 47  # window bits of zlib that accept both headers


def message_of(body: bytes, encoding: str = "identity", max_bytes: int = _MAX_MESSAGE_BYTES) -> bytes:
    """Returns the message of a unary gRPC request.

    The format is gRPC over HTTP/2 (doc/PROTOCOL-HTTP2.md of grpc/grpc): a byte that is 1 if the message is compressed,
    its length in 4 big-endian bytes, and the message.

    Args:
        body: body of the HTTP request.
        encoding: the header `grpc-encoding`.
        max_bytes: largest message after decompression.

    Raises:
        ValueError: the body is not one complete message, or its compression is neither gzip nor deflate.
    """
    if len(body) < _FRAME.size:
        raise ValueError(f"found {len(body)} bytes, expected a gRPC message after {_FRAME.size} bytes of header")
    is_compressed, length = _FRAME.unpack_from(body)
    message = body[_FRAME.size :]
    if len(message) != length:
        raise ValueError(f"found {len(message)} bytes, expected one gRPC message of {length} bytes")
    if not is_compressed:
        return message
    if encoding not in ("gzip", "deflate"):
        raise ValueError(f"found a message compressed by grpc-encoding {encoding!r}, expected gzip or deflate")
    decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        message = decompressor.decompress(message, max_bytes)
    except zlib.error as error:
        raise ValueError(f"found a broken {encoding} message ({error})") from None
    if not decompressor.eof:
        raise ValueError(f"found a {encoding} message that is truncated or longer than {max_bytes} bytes")
    return message


def application(log: RequestLog) -> Starlette:
    """Returns an ASGI application that logs every POST, at any path; it answers 204, or 400 with the reason."""

    async def receive(request: Request) -> Response:
        try:
            message = message_of(await request.body(), request.headers.get("grpc-encoding", "identity"))
        except ValueError as error:
            return Response(str(error), 400)
        log.record(message)
        return Response(status_code=204)

    return Starlette(routes=[Route("/{path:path}", receive, methods=["POST"])])


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then completes the last file."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.request_sink",
        description="Write mirrored gRPC predictions as TFRecords of PredictionLog.",
    )
    parser.add_argument("--directory", required=True, help="folder for the files; each process needs its own")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8504, help="port to listen at (default: %(default)s)")
    parser.add_argument(
        "--max-total-bytes",
        type=int,
        default=1 << 30,
        help="delete the oldest files above this size (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s %(message)s")
    if not 0 <= options.port <= _MAX_PORT:
        parser.error(f"--port: found {options.port}, expected 0 to {_MAX_PORT}; 0 chooses a free one")
    stop = {signal.SIGTERM, signal.SIGINT}
    # Blocked before any thread starts, so that every thread blocks them and `sigwait` receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    try:
        log = RequestLog(options.directory, max_total_bytes=options.max_total_bytes)
        server = HttpServer(application(log), options.host, options.port, "--port")
    except SegpipeError as error:
        sys.exit(f"request_sink: {error}")
    print(f"writing requests to {options.directory}; listening at {options.host}:{server.port}", flush=True)
    signal.sigwait(stop)
    server.stop(grace=5)
    log.close()


if __name__ == "__main__":
    main()
