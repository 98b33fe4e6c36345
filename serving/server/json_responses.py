"""Predict responses as JSON bodies of REST answers.

The forms and the messages are those of TensorFlow Serving's `api_rest.md` and `util/json_tensor.cc`. One
form is added: a string that is no UTF-8, such as a PNG file, is written as {"b64": ...} whatever its
output's name, where TensorFlow Serving does so only for names that end in "_bytes" and otherwise writes
bytes that no JSON parser takes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.server.errors import invalid_argument
from serving.server.json_requests import BASE64, JSON_TYPES, type_name

_BYTES_SUFFIX = "_bytes"
_TEXTS = 4096


def response_json(outputs: Mapping[str, tensor_pb2.TensorProto], by_row: bool) -> bytes:
    """Returns the body of an answer: {"predictions": [...]} by row, else {"outputs": ...}.

    Raises:
        ServingError: INVALID_ARGUMENT for a type without a JSON form, or, by row, for outputs that differ
            in axis 0.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    values = {name: _plain(name, tensor, by_row) for name, tensor in outputs.items()}
    if len(values) == 1:
        (content,) = values.values()
    elif by_row:
        sizes = {name: len(value) for name, value in values.items()}
        expected = next(iter(sizes.values()))
        for name, size in sizes.items():
            if size != expected:
                raise invalid_argument(f"Tensor name: {name} has inconsistent batch size: {size} expecting: {expected}")
        content = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    else:
        content = values
    return json.dumps({"predictions" if by_row else "outputs": content}).encode()


def _plain(name: str, tensor: tensor_pb2.TensorProto, by_row: bool) -> Any:
    """Returns a tensor as numbers, strings and nested lists of them."""
    if by_row and not tensor.tensor_shape.dim:
        raise invalid_argument(f"Tensor name: {name} has no shape information ")
    if tensor.dtype not in JSON_TYPES:
        raise invalid_argument(f"Failed to write JSON value for tensor type: {type_name(tensor.dtype)}")
    array = tf.make_ndarray(tensor)
    if tensor.dtype == types_pb2.DT_STRING:
        as_bytes = name.endswith(_BYTES_SUFFIX)
        strings = np.empty(array.size, object)
        strings[:] = [_json_string(data, as_bytes) for data in array.flat]
        return strings.reshape(array.shape).tolist()
    if tensor.dtype == types_pb2.DT_FLOAT:
        array = _shortest(array)
    return array.tolist()


def _shortest(array: np.ndarray) -> np.ndarray:
    """Returns float64s whose text is the shortest that reads back as the same float32s, not theirs as float64s."""
    numbers = np.empty(array.size)
    flat = array.ravel()
    # As text a number takes 128 bytes, so only a few are text at a time.
    for start in range(0, array.size, _TEXTS):
        some = slice(start, start + _TEXTS)
        numbers[some] = flat[some].astype("U32")
    return numbers.reshape(array.shape)


def _json_string(data: bytes, as_bytes: bool) -> str | dict[str, str]:
    if not as_bytes:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return {BASE64: base64.b64encode(data).decode()}
