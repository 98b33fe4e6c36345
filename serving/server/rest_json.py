"""JSON bodies of REST predict requests and responses, in the formats of TensorFlow Serving's `api_rest.md`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from components import features
from serving.server.errors import exhausted, invalid_argument
from serving.server.requests import no_images
from serving.server.tensors import type_name

# Limits a body of n bytes to n / 64 values, because a parsed empty object takes about 64 bytes.
BYTES_PER_VALUE = 64
# The types that JSON can express (TensorFlow Serving's `util/json_tensor.cc`) and the Python types of their values.
_TYPES: dict[int, tuple[type, ...]] = {
    types_pb2.DT_FLOAT: (int, float),
    types_pb2.DT_DOUBLE: (int, float),
    types_pb2.DT_BOOL: (bool,),
    types_pb2.DT_STRING: (str, dict),
    **{tf.dtypes.as_dtype(name).as_datatype_enum: (int,) for name in ("int8", "int16", "int32", "int64")},
    **{tf.dtypes.as_dtype(name).as_datatype_enum: (int,) for name in ("uint8", "uint32", "uint64")},
}
_B64 = "b64"
_CHUNK = 4096  # numbers

Infos = Mapping[str, meta_graph_pb2.TensorInfo]


def fill_request(
    body: bytes, request: predict_pb2.PredictRequest, inputs_of: Callable[[str], Infos], max_values: int
) -> bool:
    """Fills the signature and the inputs of a predict request from a JSON body in row or column format.

    Args:
        body: a JSON object.
        request: the request to fill.
        inputs_of: returns the inputs of a signature by name, "" for the default signature. May raise ServingError.
        max_values: largest number of values, lists and objects in the body; limits its memory.

    Returns:
        Whether the inputs are in row format ("instances"), which the response must use as well.

    Raises:
        ServingError: INVALID_ARGUMENT, or RESOURCE_EXHAUSTED for too many values.
    """
    document = _parse(body, max_values)
    name = document.get("signature_name", "")
    try:
        request.model_spec.signature_name = name
    except (TypeError, ValueError):
        raise invalid_argument(f"signature_name: found {_shown(name)}, expected a string") from None
    infos = inputs_of(name)
    given = [key for key in ("instances", "inputs") if key in document]
    if len(given) != 1 or not infos:
        raise invalid_argument(f"body: found {given or 'neither'}, expected either 'instances' or 'inputs'")
    columns = _columns(given[0], document[given[0]], infos)
    for key, info in infos.items():
        _check_type(key, info.dtype)
        try:
            request.inputs[key].CopyFrom(tf.make_tensor_proto(_array(key, columns[key], info.dtype)))
        except (ValueError, OverflowError) as error:
            raise invalid_argument(f"{key}: found {error}, expected {type_name(info.dtype)}") from None
    return given == ["instances"]


def response_json(outputs: Mapping[str, tensor_pb2.TensorProto], by_row: bool) -> bytes:
    """Returns the body of a response: {"predictions": [...]} by row, else {"outputs": ...}.

    Writes strings like TensorFlow Serving (`util/json_tensor.cc` at 9d981c5, AddSingleValueAndAdvance): as
    {"b64": ...} if the output's name ends in `_bytes`, else byte by byte, so strings that are not UTF-8 produce invalid
    JSON. Raises ServingError, INVALID_ARGUMENT, for a type that JSON cannot express and for rows of unequal number.
    """
    values = {name: _plain(name, tensor) for name, tensor in outputs.items()}
    rows = {name: [dim.size for dim in tensor.tensor_shape.dim][:1] for name, tensor in outputs.items()}
    if by_row and (len({*map(tuple, rows.values())}) != 1 or [] in rows.values()):
        raise invalid_argument(f"instances: found outputs with {rows} rows, expected equal numbers; send 'inputs'")
    content: Any = values
    if len(values) == 1:
        (content,) = values.values()
    elif by_row:
        content = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    text = json.dumps({"predictions" if by_row else "outputs": content}, ensure_ascii=False)
    return text.encode(errors="surrogateescape")


def _parse(body: bytes, max_values: int) -> dict[str, Any]:
    # Parsed values need far more memory than their text. So count them first, by commas and opening brackets.
    values = sum(map(body.count, (b",", b"[", b"{")))
    if values > max_values:
        raise exhausted(
            f"body: found {values} commas and brackets, larger than max ({max_values}), one for "
            f"{BYTES_PER_VALUE} bytes of --max_message_bytes; send images as b64, and large tensors over gRPC"
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"body: found {error}, expected a JSON object") from None
    if not isinstance(document, dict):
        raise invalid_argument(f"body: found {_shown(document)}, expected a JSON object")
    return document


def _columns(form: str, value: Any, infos: Infos) -> dict[str, Any]:
    """Returns the values of each input; the name of a single input is optional. Raises ServingError."""
    by_row, first = form == "instances", next(iter(infos))
    if by_row and not isinstance(value, list):
        raise invalid_argument(f"instances: found {_shown(value)}, expected a list")
    if by_row and not value:
        raise no_images(features.IMAGE if features.IMAGE in infos else first)
    rows = value if by_row else [value]
    if len(infos) == 1 and not any(map(_is_named, rows)):
        return {first: value}
    for index, row in enumerate(rows):
        if not _is_named(row) or not infos.keys() <= row.keys() or (by_row and len(row) > len(infos)):
            place, keys = f"instances[{index}]" if by_row else "inputs", ", ".join(sorted(infos))
            raise invalid_argument(f"{place}: found {_shown(row)}, expected an object with the keys {keys}")
    return {name: [row[name] for row in rows] for name in infos} if by_row else dict(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(_B64), str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _array(name: str, value: Any, dtype: int) -> np.ndarray:
    """Returns nested lists as an array of a `DataType`. Raises ServingError, ValueError or OverflowError."""
    # An object array keeps the types of the values and the lists of unequal length.
    leaves = np.array(value, object)
    if not set(map(type, leaves.flat)) <= set(_TYPES[dtype]):
        place, wrong = next(pair for pair in np.ndenumerate(leaves) if type(pair[1]) not in _TYPES[dtype])
        expected = f"{type_name(dtype)}, and lists of one length and depth"
        raise invalid_argument(f"{name}{list(place)}: found {_shown(wrong)}, expected {expected}")
    if dtype == types_pb2.DT_STRING:
        return np.array([_string(leaf) for leaf in leaves.flat], object).reshape(leaves.shape)
    with np.errstate(over="ignore"):
        array = leaves.astype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)
    if array.dtype.kind != "f" and not np.array_equal(array, leaves):
        raise ValueError("a number out of range")
    return array


def _string(leaf: str | dict[str, Any]) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode()
    if not _is_base64(leaf):
        raise ValueError(_shown(leaf))
    text = "".join(leaf[_B64].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ValueError(f"invalid base64 ({error})") from None


def _plain(name: str, tensor: tensor_pb2.TensorProto) -> Any:
    """Returns a tensor as numbers, strings and nested lists of them."""
    _check_type(name, tensor.dtype)
    array = tf.make_ndarray(tensor)
    if tensor.dtype == types_pb2.DT_STRING:
        strings = np.empty(array.size, object)
        for index, data in enumerate(array.flat):
            text = base64.b64encode(data).decode() if name.endswith("_bytes") else data.decode(errors="surrogateescape")
            strings[index] = {_B64: text} if name.endswith("_bytes") else text
        array = strings.reshape(array.shape)
    elif tensor.dtype == types_pb2.DT_FLOAT:
        # Convert by way of text, so that the float32 0.1 is written as 0.1 and not as 0.10000000149, as in TensorFlow
        # Serving. A number takes 128 bytes as text, so convert in chunks.
        parts = np.array_split(array.ravel(), array.size // _CHUNK + 1)
        array = np.concatenate([part.astype("U32").astype(float) for part in parts]).reshape(array.shape)
    return array.tolist()


def _check_type(name: str, dtype: int) -> None:
    if dtype not in _TYPES:
        raise invalid_argument(f"{name}: found type {type_name(dtype)}, which JSON cannot express; use gRPC")


def _shown(value: Any) -> str:
    try:
        return json.dumps(value)[:100]
    except (RecursionError, ValueError):
        return "a value that is nested too deeply or too large"
