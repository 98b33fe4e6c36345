"""Between the tensors of a request or an answer and NumPy, under limits that a hostile request cannot pass.

The wire's text is TensorFlow's `TensorProto`: a shape, and values either raw or in a field for their type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.server.errors import invalid_argument

_LENGTH_DELIMITED = 2
_MAX_RANK = 32  # of a NumPy array


def read_shape(name: str, proto: tensor_pb2.TensorProto) -> list[int]:
    """Returns the shape that a request's tensor claims. Raises ServingError for one that cannot be."""
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(side < 0 for side in shape):
        raise invalid_argument(f"tensor parsing error: {name}; found shape {shape}, expected known, whole sides")
    if len(shape) > _MAX_RANK:
        raise invalid_argument(f"tensor parsing error: {name}; found {len(shape)} sides, expected at most {_MAX_RANK}")
    return shape


def from_proto(name: str, proto: tensor_pb2.TensorProto, max_bytes: int) -> np.ndarray:
    """Returns a request's tensor as an array; strings become an object array of bytes.

    Args:
        name: the input, for messages.
        proto: the tensor, which may give one value for many elements.
        max_bytes: the largest array that is made, in bytes.

    Raises:
        ServingError: INVALID_ARGUMENT; the tensor contradicts itself or is too large.
    """
    shape = read_shape(name, proto)
    count = math.prod(shape)
    dtype = tf.dtypes.as_dtype(proto.dtype)
    # One string may stand for many elements, and each of them becomes a copy.
    one = len(proto.string_val[0]) if dtype == tf.string and len(proto.string_val) == 1 else 1
    if count * max(dtype.size or 1, one) > max_bytes:
        raise invalid_argument(f"tensor parsing error: {name}; shape {shape} holds more than {max_bytes} bytes")
    if dtype == tf.string:
        return _strings(name, proto, shape, count)
    try:
        if proto.tensor_content:
            return np.frombuffer(proto.tensor_content, dtype.as_numpy_dtype).reshape(shape)
        return tf.make_ndarray(proto).reshape(shape)
    except (ValueError, TypeError, IndexError) as error:
        raise invalid_argument(f"tensor parsing error: {name}; {error}") from None


def _strings(name: str, proto: tensor_pb2.TensorProto, shape: list[int], count: int) -> np.ndarray:
    values = list(proto.string_val)
    if len(values) == 1 and count > 1:
        values *= count
    if len(values) != count:
        raise invalid_argument(f"tensor parsing error: {name}; found {len(values)} strings for shape {shape}")
    array = np.empty(count, object)
    array[:] = values
    return array.reshape(shape)


def to_proto(array: np.ndarray, as_content: bool = False) -> tensor_pb2.TensorProto:
    """Returns an answer's tensor.

    Args:
        array: the values; an object array holds bytes.
        as_content: whether numbers travel as raw bytes, `tensor_content`, and not in the field of their
            type, which is what TensorFlow Serving does unless it is told otherwise.
    """
    if array.dtype == object or array.dtype.kind in "SU":
        proto = _empty(array, tf.string)
        proto.string_val.extend(array.ravel().tolist())
        return proto
    proto = _empty(array, tf.dtypes.as_dtype(array.dtype))
    if as_content:
        proto.tensor_content = array.tobytes()
        return proto
    if array.dtype.type not in _FIELDS:
        return tf.make_tensor_proto(array)
    field, is_wire = _FIELDS[array.dtype.type]
    if is_wire(array):
        # A packed field's wire bytes are the array's own, so the values need not pass through Python one by one.
        data = np.ascontiguousarray(array).tobytes()
        number = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[field].number
        proto.MergeFromString(bytes([number << 3 | _LENGTH_DELIMITED]) + _varint(len(data)) + data)
    else:
        getattr(proto, field).extend(array.ravel().tolist())
    return proto


def _empty(array: np.ndarray, dtype: Any) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for side in array.shape:
        proto.tensor_shape.dim.add(size=side)
    return proto


def _always(array: np.ndarray) -> bool:
    return True


def _never(array: np.ndarray) -> bool:
    return False


def _small(array: np.ndarray) -> bool:
    """Tells whether every value is below 128, which a varint writes as one byte."""
    return array.size == 0 or int(array.max()) < 128


# The protocol buffer encoding is little-endian, as are the processors that TensorFlow's wheels are built for.
_FIELDS: dict[Any, tuple[str, Callable[[np.ndarray], bool]]] = {
    np.float32: ("float_val", _always),
    np.float64: ("double_val", _always),
    np.bool_: ("bool_val", _always),
    np.uint8: ("int_val", _small),
    np.int8: ("int_val", _never),
    np.int16: ("int_val", _never),
    np.uint16: ("int_val", _never),
    np.int32: ("int_val", _never),
    np.int64: ("int64_val", _never),
}


def _varint(value: int) -> bytes:
    """Returns a number in the protocol buffer encoding: seven bits a byte, lowest first."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
