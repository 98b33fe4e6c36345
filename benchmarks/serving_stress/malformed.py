"""Generates malformed requests: protos, images, tensors, JSON bodies and connections.

Every generator takes a random number generator, a valid model name and a valid image, so a seed reproduces all
requests.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from benchmarks.local_server import predict_request

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
OTHER_METHODS = (
    "/tensorflow.serving.PredictionService/Classify",
    "/tensorflow.serving.PredictionService/Regress",
    "/tensorflow.serving.PredictionService/MultiInference",
    "/tensorflow.serving.PredictionService/NoSuchMethod",
)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WRONG = ("dtype", "rank", "count", "extra input", "missing input", "output", "signature", "model", "version")
_PNG = b"\x89PNG\r\n\x1a\n"

GrpcCall = tuple[str, bytes]
HttpCall = tuple[str, str, bytes]


def fuzzed_proto(rng: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a valid call with bytes changed, removed or added."""
    data = predict_request(model, [image[:200]]).SerializeToString()
    return rng.choice((PREDICT, METADATA, STATUS)), _mutated(rng, data)


def random_bytes(rng: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a call of any method of the two services with random bytes as its message."""
    return rng.choice((PREDICT, METADATA, STATUS, RELOAD, *OTHER_METHODS)), rng.randbytes(rng.randrange(200))


def corrupt_image(rng: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a Predict call with an image that is truncated, changed, of an unsupported format, or empty."""
    broken = rng.choice(
        (
            lambda: image[: rng.randrange(len(image))],
            lambda: _mutated(rng, image),
            lambda: b"",
            lambda: b"GIF89a" + rng.randbytes(20),
            lambda: b"BM" + rng.randbytes(60),
            lambda: _PNG + rng.randbytes(40),
            lambda: b"\xff\xd8\xff\xe0" + rng.randbytes(40),
        )
    )()
    return PREDICT, predict_request(model, [broken]).SerializeToString()


def huge_dimensions(rng: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a Predict call with an image or tensor whose declared size is far larger than its data."""
    if rng.random() < 0.5:
        return PREDICT, predict_request(model, [rng.choice((_huge_png, _huge_jpeg))(rng)]).SerializeToString()
    request = predict_request(model, [b""])
    request.inputs["image"].tensor_shape.dim[0].size = rng.choice((2**62, 2**31, 10**9, -1, -(2**63)))
    for _ in range(rng.randrange(3)):
        request.inputs["image"].tensor_shape.dim.add(size=rng.choice((0, 2**31, 2**62)))
    return PREDICT, request.SerializeToString()


def wrong_types(rng: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a Predict call with a wrong dtype, rank, input, output, signature, model, version or label."""
    request = predict_request(model, [image])
    tensor, spec = request.inputs["image"], request.model_spec
    match rng.choice(_WRONG):
        case "dtype":
            tensor.dtype = rng.choice((0, 1, 3, 9, 23, 107, 9999))
        case "rank":
            del tensor.tensor_shape.dim[:]
            for _ in range(rng.choice((0, 2, 40))):
                tensor.tensor_shape.dim.add(size=1)
        case "count":
            tensor.tensor_shape.dim[0].size = rng.choice((0, 3, 100_000))
        case "extra input":
            request.inputs["mask"].CopyFrom(tensor)
        case "missing input":
            request.ClearField("inputs")
        case "output":
            request.output_filter.append(rng.choice(("absent", "", "mask_png_bytes")))
        case "signature":
            spec.signature_name = rng.choice(("absent", "__saved_model_init_op", "x" * 1000))
        case "model":
            spec.name = rng.choice(("", "absent", "\x00", "x" * 10_000))
        case "version":
            if rng.random() < 0.5:
                spec.version.value = rng.choice((-1, 0, 2**63 - 1))
            else:
                spec.version_label = rng.choice(("absent", "x" * 1000))
    return PREDICT, request.SerializeToString()


def wrong_metadata(rng: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a call for the metadata or status of a model, version or field that does not exist."""
    spec = {"name": rng.choice((model, "", "absent", "../" * 50))}
    if rng.random() < 0.5:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec)
        request.metadata_field.extend(rng.choice(([], ["absent"], ["signature_def", "absent"])))
        return METADATA, request.SerializeToString()
    status = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    status.model_spec.version.value = rng.choice((-1, 2**62))
    return STATUS, status.SerializeToString()


def rest_call(rng: random.Random, model: str, image: bytes) -> HttpCall:
    """Returns the method, path and body of a malformed REST call."""
    valid = json.dumps({"instances": [{"b64": "AAAA"}], "signature_name": "serving_default"}).encode()
    body = rng.choice(
        (
            lambda: _mutated(rng, valid),
            lambda: rng.randbytes(30),
            lambda: b'{"instances": ' + b"[" * rng.choice((10, 5000)),
            lambda: json.dumps({"inputs": rng.choice((1, None, {}, [[1], 2], {"image": 3}, "\ud800"))}).encode(),
            lambda: json.dumps({"instances": rng.choice(([], [1], ["x"], [{"b64": "!"}], [{"y": 1}]))}).encode(),
        )
    )()
    names = (model, "absent", "%ff", "a" * 2000)
    path = f"/v1/models/{rng.choice(names)}{rng.choice(('', '/versions/99', '/labels/no', '/versions/x'))}"
    return rng.choice(("POST", "POST", "GET", "PUT")), path + rng.choice((":predict", ":classify", "", ":")), body


def cut_connection(rng: random.Random, port: int, rest_port: int) -> None:
    """Connects to one of the ports, sends part of a request and disconnects."""
    http = b"POST /v1/models/x:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"[" * 1000
    target, data = rng.choice(((rest_port, http), (port, _PREFACE + rng.randbytes(300)), (port, http)))
    # The server may close the connection first.
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target), timeout=10) as connection:
        connection.sendall(data[: rng.randrange(len(data))])
        if rng.random() < 0.5:
            # Closes with a TCP reset instead of a normal shutdown.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


GRPC_KINDS: dict[str, Callable[[random.Random, str, bytes], GrpcCall]] = {
    "fuzzed proto": fuzzed_proto,
    "random bytes": random_bytes,
    "corrupt image": corrupt_image,
    "huge dimensions": huge_dimensions,
    "wrong types": wrong_types,
    "wrong metadata": wrong_metadata,
}


def _mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    if rng.random() < 0.5:
        # The length stays the same, so the parser reads further before it fails.
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    for _ in range(rng.randint(1, 8)):
        position = rng.randrange(len(changed) + 1)
        changed[position : position + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(changed)


def _huge_png(rng: random.Random) -> bytes:
    width, height = rng.choice(((60_000, 60_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (0, 0)))
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data))
    return _PNG + b"".join(chunks)


def _huge_jpeg(rng: random.Random) -> bytes:
    height, width = rng.choice(((65_500, 65_500), (65_535, 65_535), (0, 65_535)))
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC0, 17, 8, height, width, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    return b"\xff\xd8" + frame + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" + bytes(100) + b"\xff\xd9"
