"""Checks prediction requests against a signature, with the status codes of TensorFlow Serving's `predict_util.cc`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from components import features
from serving.server.errors import ServingError, failed_precondition, invalid_argument
from serving.server.options import ServeOptions
from serving.server.tensors import from_proto, read_shape, type_name

DEFAULT_SIGNATURE = "serving_default"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"


def find_signature(signatures: Mapping[str, Any], name: str) -> tuple[str, Any]:
    """Returns a signature's name, with "" as the default signature, and its definition. Raises ServingError."""
    name = name or DEFAULT_SIGNATURE
    if name not in signatures:
        known = _listed(key for key in signatures if not key.startswith("__"))
        raise failed_precondition(f'Serving signature key "{name}" not found. Expected one of {known}')
    return name, signatures[name]


def read_inputs(
    signature: Any, given: Mapping[str, Any], limits: ServeOptions, model_max_pixels: int | None = None
) -> dict[str, np.ndarray]:
    """Returns every input of a `SignatureDef` from a request's `TensorProto`s; missing ones get their defaults.

    Images are limited by the server's options and by `model_max_pixels`, the largest that the model decodes. Raises
    ServingError, INVALID_ARGUMENT, for a missing, unknown, malformed or too large input.
    """
    defaults = getattr(signature, "defaults", {})
    missing, extra = set(signature.inputs) - set(given) - set(defaults), set(given) - set(signature.inputs)
    if missing or extra:
        raise invalid_argument(
            f"inputs: found {_listed(given)}, expected {_listed(signature.inputs)}; "
            f"missing {_listed(missing)}, unknown {_listed(extra)}"
        )
    arrays = {name: tf.make_ndarray(default) for name, default in defaults.items() if name not in given}
    for name in sorted(given):
        _check_tensor(name, signature.inputs[name], given[name], limits)
        array = arrays[name] = from_proto(name, given[name], limits.max_message_bytes)
        if name == features.IMAGE and array.dtype == object:
            pixels = {"--max_image_pixels of the server": limits.max_image_pixels}
            if model_max_pixels is not None:
                pixels["export.max_pixels of the model"] = model_max_pixels
            check_images(array.ravel().tolist(), pixels)
    return arrays


def choose_outputs(signature: Any, wanted: Iterable[str]) -> list[str]:
    """Returns the outputs of a request's filter; all outputs if it is empty. Raises ServingError."""
    chosen = list(wanted)
    for name in chosen:
        if name not in signature.outputs:
            # TensorFlow Serving's text, which the client searches for.
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} Expected one of {_listed(signature.outputs)}"
            )
        if chosen.count(name) > 1:
            raise invalid_argument(f"duplicate output tensor alias: {name}")
    return chosen or sorted(signature.outputs)


def check_images(images: Sequence[bytes], limits: Mapping[str, int]) -> None:
    """Checks the sizes in the headers of images before they are decoded: few bytes can claim gigapixels.

    `limits` maps names of settings to pixels. The model itself rejects images with an unreadable header. Raises
    ServingError; the client parses the index from its message, as from those of `serving/decoding.py`.
    """
    for index, data in enumerate(images):
        place = f"image[{index}] of {len(images)}"
        if not data.startswith((_PNG, _JPEG)):
            raise invalid_argument(f"{place}: found {len(data)} bytes in another format, expected a PNG or JPEG")
        height, width = claimed_size(data)
        exceeded = [f"at most {limit} in all ({name})" for name, limit in limits.items() if height * width > limit]
        if exceeded:
            raise invalid_argument(
                f"{place}: found [{height} {width}] pixels (height, width), expected {' and '.join(exceeded)}; "
                "send a smaller image or raise each limit"
            )


def claimed_size(data: bytes) -> tuple[int, int]:
    """Returns height and width in pixels from the header of a PNG or JPEG; zeros if it is unreadable."""
    if data.startswith(_PNG):
        # PNG specification, section 11.2.2: big-endian, bytes 16 to 23.
        width, height = struct.unpack_from(">II", data, 16) if len(data) >= 24 else (0, 0)
        return height, width
    try:
        # TensorFlow's header parser in C++: a parser in Python would need seconds for long padding.
        height, width, _ = tf.io.extract_jpeg_shape(data).numpy().tolist()
    except tf.errors.InvalidArgumentError:
        return 0, 0
    return height, width


def no_images(name: str) -> ServingError:
    """Returns the error for an empty batch."""
    return invalid_argument(f"{name}: found 0 {_rows(name)}, expected at least 1")


def _check_tensor(name: str, info: Any, proto: Any, limits: ServeOptions) -> None:
    """Checks type and shape of a tensor before its values are read."""
    if proto.dtype != info.dtype:
        raise invalid_argument(f"{name}: found type {type_name(proto.dtype)}, expected {type_name(info.dtype)}")
    shape = read_shape(name, proto)
    if name == features.IMAGE and shape[:1] == [0]:
        raise no_images(name)
    expected = tf.TensorShape(info.tensor_shape)
    if not expected.is_compatible_with(shape):
        sizes = str(expected.as_list()).replace("None", "?")
        raise invalid_argument(f"{name}: found a tensor of shape {shape}, expected {sizes}")
    if expected.rank and expected[0] is None and shape[0] > limits.max_images_per_request:
        raise invalid_argument(
            f"{name}: found {shape[0]} {_rows(name)}, expected at most {limits.max_images_per_request}; "
            "send several requests or start the server with --max_images_per_request"
        )


def _rows(name: str) -> str:
    return "images" if name == features.IMAGE else "rows"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
