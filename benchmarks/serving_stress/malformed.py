"""Requests that no honest client sends: broken protos, images, tensors, JSON bodies and connections.

Every generator takes a random source and two sound things to break, an image and a model's name, so that a
seed names a whole attack.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from benchmarks.serving_stress.local_server import predict_request

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
_PNG = b"\x89PNG\r\n\x1a\n"

GrpcCall = tuple[str, bytes]
HttpCall = tuple[str, str, bytes]


def fuzzed_proto(chance: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a call whose message is a sound one with bytes changed, removed or added."""
    data = predict_request(model, [image[:200]]).SerializeToString()
    return chance.choice((PREDICT, METADATA, STATUS)), _mutated(chance, data)


def random_bytes(chance: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a call whose message is noise, of any method of the two services."""
    return chance.choice((PREDICT, METADATA, STATUS, RELOAD, *OTHER_METHODS)), chance.randbytes(chance.randrange(200))


def corrupt_image(chance: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a prediction of an image cut short, with bytes changed, of another kind or of nothing."""
    broken = chance.choice(
        (
            lambda: image[: chance.randrange(len(image))],
            lambda: _mutated(chance, image),
            lambda: b"",
            lambda: b"GIF89a" + chance.randbytes(20),
            lambda: b"BM" + chance.randbytes(60),
            lambda: _PNG + chance.randbytes(40),
            lambda: b"\xff\xd8\xff\xe0" + chance.randbytes(40),
        )
    )()
    return PREDICT, predict_request(model, [broken]).SerializeToString()


def huge_dimensions(chance: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a prediction of an image or a tensor that claims to be far larger than it is."""
    if chance.random() < 0.5:
        return PREDICT, predict_request(model, [chance.choice((_huge_png, _huge_jpeg))(chance)]).SerializeToString()
    request = predict_request(model, [b""])
    request.inputs["image"].tensor_shape.dim[0].size = chance.choice((2**62, 2**31, 10**9, -1, -(2**63)))
    for _ in range(chance.randrange(3)):
        request.inputs["image"].tensor_shape.dim.add(size=chance.choice((0, 2**31, 2**62)))
    return PREDICT, request.SerializeToString()


def wrong_types(chance: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a prediction with a wrong dtype, rank, input, output, signature, model, version or label."""
    request = predict_request(model, [image])
    chance.choice(_WRONGS)(chance, request)
    return PREDICT, request.SerializeToString()


def wrong_questions(chance: random.Random, model: str, image: bytes) -> GrpcCall:
    """Returns a question about metadata or states of something that is not there."""
    spec = {"name": chance.choice((model, "", "absent", "../" * 50))}
    if chance.random() < 0.5:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec)
        request.metadata_field.extend(chance.choice(([], ["absent"], ["signature_def", "absent"])))
        return METADATA, request.SerializeToString()
    status = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    status.model_spec.version.value = chance.choice((-1, 2**62))
    return STATUS, status.SerializeToString()


def rest_call(chance: random.Random, model: str, image: bytes) -> HttpCall:
    """Returns method, address and body of a REST call that is wrong somewhere."""
    sound = json.dumps({"instances": [{"b64": "AAAA"}], "signature_name": "serving_default"}).encode()
    body = chance.choice(
        (
            lambda: _mutated(chance, sound),
            lambda: chance.randbytes(30),
            lambda: b'{"instances": ' + b"[" * chance.choice((10, 5000)),
            lambda: json.dumps({"inputs": chance.choice((1, None, {}, [[1], 2], {"image": 3}, "\ud800"))}).encode(),
            lambda: json.dumps({"instances": chance.choice(([], [1], ["x"], [{"b64": "!"}], [{"y": 1}]))}).encode(),
        )
    )()
    names = (model, "absent", "%ff", "a" * 2000)
    path = f"/v1/models/{chance.choice(names)}{chance.choice(('', '/versions/99', '/labels/no', '/versions/x'))}"
    return chance.choice(("POST", "POST", "GET", "PUT")), path + chance.choice((":predict", ":classify", "", ":")), body


def cut_connection(chance: random.Random, port: int, rest_port: int) -> None:
    """Connects to one of the ports, sends the beginning of something and goes away."""
    http = b"POST /v1/models/x:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"[" * 1000
    target, data = chance.choice(((rest_port, http), (port, _PREFACE + chance.randbytes(300)), (port, http)))
    # The server may rightly hang up first.
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target), timeout=10) as connection:
        connection.sendall(data[: chance.randrange(len(data))])
        if chance.random() < 0.5:
            # An abortive close: the server sees a reset instead of an end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


GRPC_KINDS: dict[str, Callable[[random.Random, str, bytes], GrpcCall]] = {
    "fuzzed proto": fuzzed_proto,
    "random bytes": random_bytes,
    "corrupt image": corrupt_image,
    "huge dimensions": huge_dimensions,
    "wrong types": wrong_types,
    "wrong questions": wrong_questions,
}


def _mutated(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    if chance.random() < 0.5:
        # Lengths stay as they are, so that more of it is read before the issue is met.
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)
    for _ in range(chance.randint(1, 8)):
        position = chance.randrange(len(changed) + 1)
        changed[position : position + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return bytes(changed)


def _huge_png(chance: random.Random) -> bytes:
    width, height = chance.choice(((60_000, 60_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (0, 0)))
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data))
    return _PNG + b"".join(chunks)


def _huge_jpeg(chance: random.Random) -> bytes:
    height, width = chance.choice(((65_500, 65_500), (65_535, 65_535), (0, 65_535)))
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC0, 17, 8, height, width, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    return b"\xff\xd8" + frame + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" + bytes(100) + b"\xff\xd9"


def _wrong_dtype(chance: random.Random, request: Any) -> None:
    request.inputs["image"].dtype = chance.choice((0, 1, 3, 9, 23, 107, 9999))


def _wrong_rank(chance: random.Random, request: Any) -> None:
    del request.inputs["image"].tensor_shape.dim[:]
    for _ in range(chance.choice((0, 2, 40))):
        request.inputs["image"].tensor_shape.dim.add(size=1)


def _wrong_count(chance: random.Random, request: Any) -> None:
    request.inputs["image"].tensor_shape.dim[0].size = chance.choice((0, 3, 100_000))


def _extra_input(chance: random.Random, request: predict_pb2.PredictRequest) -> None:
    request.inputs["mask"].CopyFrom(request.inputs["image"])


def _missing_input(chance: random.Random, request: predict_pb2.PredictRequest) -> None:
    request.ClearField("inputs")


def _wrong_output(chance: random.Random, request: predict_pb2.PredictRequest) -> None:
    request.output_filter.append(chance.choice(("absent", "", "mask_png_bytes")))


def _wrong_signature(chance: random.Random, request: predict_pb2.PredictRequest) -> None:
    request.model_spec.signature_name = chance.choice(("absent", "__saved_model_init_op", "x" * 1000))


def _wrong_model(chance: random.Random, request: predict_pb2.PredictRequest) -> None:
    request.model_spec.name = chance.choice(("", "absent", "\x00", "x" * 10_000))


def _wrong_version(chance: random.Random, request: predict_pb2.PredictRequest) -> None:
    if chance.random() < 0.5:
        request.model_spec.version.value = chance.choice((-1, 0, 2**63 - 1))
    else:
        request.model_spec.version_label = chance.choice(("absent", "x" * 1000))


_WRONGS: tuple[Callable[[random.Random, Any], None], ...] = (
    _wrong_dtype,
    _wrong_rank,
    _wrong_count,
    _extra_input,
    _missing_input,
    _wrong_output,
    _wrong_signature,
    _wrong_model,
    _wrong_version,
)
