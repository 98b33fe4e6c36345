"""Converts tensors of requests and responses from and to NumPy, within memory limits."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.server.errors import invalid_argument

# The fields in which TensorFlow Serving sends numbers.
_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "bool": "bool_val",
    "int64": "int64_val",
    **dict.fromkeys(("uint8", "int8", "int16", "uint16", "int32"), "int_val"),
}
_LENGTH_DELIMITED = 2


def type_name(dtype: int) -> str:
    """Returns the name of a `DataType` in TensorFlow's messages, such as "uint8"."""
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower() if dtype in types_pb2.DataType.values() else "?"


def read_shape(name: str, proto: tensor_pb2.TensorProto) -> list[int]:
    """Returns the shape of a request's tensor. Raises ServingError if a dimension is unknown or negative."""
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid_argument(f"{name}: found a tensor of shape {shape}, expected known dimensions of 0 or more")
    return shape


def from_proto(name: str, proto: tensor_pb2.TensorProto, max_bytes: int) -> np.ndarray:
    """Returns a request's tensor as an array of at most `max_bytes`; strings as an object array of bytes.

    Raises ServingError, INVALID_ARGUMENT, if the tensor is inconsistent or too large.
    """
    shape, texts = read_shape(name, proto), proto.string_val
    count = math.prod(shape)
    try:
        size = tf.dtypes.as_dtype(proto.dtype).size or 1
    except (TypeError, KeyError):
        raise invalid_argument(f"{name}: found type number {proto.dtype}, expected one of TensorFlow's") from None
    # A single value fills the whole shape, so a short message can claim a large tensor.
    if count * max(size, len(texts[0]) if len(texts) == 1 else 1) > max_bytes:
        raise invalid_argument(f"{name}: found a tensor of shape {shape}, expected at most {max_bytes} bytes")
    if proto.dtype == types_pb2.DT_STRING and len(texts) not in (1, count):
        raise invalid_argument(f"{name}: found {len(texts)} strings for shape {shape}, expected {count}")
    try:
        return tf.make_ndarray(proto)
    except Exception as error:  # NumPy and TensorFlow raise many types for values that do not fit shape or type
        raise invalid_argument(f"{name}: found values that do not fill shape {shape}: {error}") from None


def to_proto(array: np.ndarray, as_content: bool = False) -> tensor_pb2.TensorProto:
    """Returns a response's tensor. Numbers go to the field of their type, with `as_content` to `tensor_content`."""
    proto = tf.make_tensor_proto(array)
    name = _FIELDS.get(array.dtype.name)
    if name is None:
        return proto
    values, proto.tensor_content = array.tobytes(), b""
    proto.ClearField(name)
    if as_content:
        proto.tensor_content = values
    elif array.dtype.kind in "fb" or (array.dtype == np.uint8 and np.all(array < 128)):
        # A packed field contains the array's bytes, so write them without a Python loop. A varint below 128 is one
        # byte: https://protobuf.dev/programming-guides/encoding.
        tag = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[name].number << 3 | _LENGTH_DELIMITED
        length = [len(values) >> shift & 127 | 128 for shift in (0, 7, 14, 21)]
        proto.MergeFromString(bytes([tag, *length, len(values) >> 28]) + values)
    else:
        getattr(proto, name).extend(array.ravel().tolist())
    return proto
