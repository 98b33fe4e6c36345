"""Checks a prediction request against a signature, with TensorFlow Serving's status codes and texts.

Sources: `predict_util.cc` of TensorFlow Serving, `saved_model/util.cc` of TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from components import features
from serving.server.errors import failed_precondition, invalid_argument
from serving.server.image_limits import check_images
from serving.server.tensors import from_proto, read_shape

DEFAULT_SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """What a request may ask for.

    Attributes:
        max_image_pixels: most height times width of an encoded image.
        max_images: most rows of an input whose first side is open.
        max_tensor_bytes: the largest input, in bytes.
    """

    max_image_pixels: int = 4096 * 4096
    max_images: int = 128
    max_tensor_bytes: int = 64 << 20


def find_signature(signatures: Mapping[str, Any], name: str) -> tuple[str, Any]:
    """Returns a signature's name, the default one's for "", and its definition. Raises ServingError."""
    name = name or DEFAULT_SIGNATURE
    if name not in signatures:
        raise failed_precondition(f'Serving signature key "{name}" not found.')
    return name, signatures[name]


def read_inputs(signature: Any, given: Mapping[str, Any], limits: RequestLimits) -> dict[str, np.ndarray]:
    """Returns every input of a signature from a request's tensors; one left out takes the signature's default.

    Raises:
        ServingError: INVALID_ARGUMENT for a missing, extra, malformed or too large input.
    """
    defaults = getattr(signature, "defaults", {})
    _check_names(signature, given, defaults)
    arrays = {}
    for position, name in enumerate(sorted(signature.inputs)):
        info = signature.inputs[name]
        if name not in given:
            arrays[name] = tf.make_ndarray(defaults[name])
            continue
        _check_type(position, name, info, given[name])
        _check_shape(name, info, read_shape(name, given[name]), limits)
        array = from_proto(name, given[name], limits.max_tensor_bytes)
        if name == features.IMAGE and array.dtype == object:
            check_images(name, array.ravel(), limits.max_image_pixels)
        arrays[name] = array
    return arrays


def choose_outputs(signature: Any, wanted: Iterable[str]) -> list[str]:
    """Returns the outputs that a request's filter names, all of them for an empty one. Raises ServingError."""
    chosen: list[str] = []
    for name in wanted:
        if name not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {_braces(signature.outputs)}."
            )
        if name in chosen:
            raise invalid_argument(f"duplicate output tensor alias: {name}")
        chosen.append(name)
    return chosen or sorted(signature.outputs)


def _check_names(signature: Any, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    sent, known = set(given), set(signature.inputs)
    if len(sent) > len(known) or (len(sent) < len(known) and not defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(known)} len({_braces(sent)}) != "
            f"len({_braces(known)}). Sent extra: {_braces(sent - known)}. "
            f"Missing but required: {_braces(known - sent)}."
        )
    for name in sorted(known - sent - set(defaults)):
        raise invalid_argument(
            f"Signature input alias: {name}(feed name: {signature.inputs[name].name}) not found in request and no "
            f"default value provided. Inputs expected to be in the request {_braces(sent)}, or default input alias "
            f"set: {','.join(sorted(defaults))}"
        )
    if sent - known:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {','.join(sorted(sent & known))}, "
            f"request input: {','.join(sorted(sent))}"
        )


def _check_type(position: int, name: str, info: Any, proto: Any) -> None:
    if proto.dtype != info.dtype:
        expected, found = (_type_name(number) for number in (info.dtype, proto.dtype))
        raise invalid_argument(f"Expects arg[{position}] to be {expected} but {found} is provided; input {name}")


def _type_name(number: int) -> str:
    try:
        return str(types_pb2.DataType.Name(number)).removeprefix("DT_").lower()
    except ValueError:
        return "an unknown type"


def _check_shape(name: str, info: Any, shape: list[int], limits: RequestLimits) -> None:
    if info.tensor_shape.unknown_rank:
        return
    sides = [dim.size for dim in info.tensor_shape.dim]
    fits = len(sides) == len(shape) and all(side in (-1, found) for side, found in zip(sides, shape, strict=True))
    if not fits:
        expected = ", ".join("?" if side < 0 else str(side) for side in sides)
        raise invalid_argument(f"Cannot feed value of shape {shape} for input {name}, which has shape [{expected}]")
    if sides and sides[0] == -1 and shape[0] > limits.max_images:
        raise invalid_argument(
            f"{name}: found {shape[0]} rows, expected at most {limits.max_images}; "
            "send several requests or start the server with --max_images_per_request"
        )


def _braces(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
