"""JSON bodies of REST predict calls as predict requests.

The forms and the messages are those of TensorFlow Serving's `api_rest.md` and `util/json_tensor.cc`.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from serving.server.errors import ServingError, invalid_argument

BASE64 = "b64"
_MOST_DEBUG_CHARACTERS = 256
JSON_TYPES: dict[int, tuple[type, ...]] = {
    types_pb2.DT_FLOAT: (int, float),
    types_pb2.DT_DOUBLE: (int, float),
    types_pb2.DT_BOOL: (bool,),
    types_pb2.DT_STRING: (str, dict),
    **dict.fromkeys(
        (
            types_pb2.DT_INT8,
            types_pb2.DT_INT16,
            types_pb2.DT_INT32,
            types_pb2.DT_INT64,
            types_pb2.DT_UINT8,
            types_pb2.DT_UINT32,
            types_pb2.DT_UINT64,
        ),
        (int,),
    ),
}

Infos = Mapping[str, meta_graph_pb2.TensorInfo]


def fill_request(body: bytes, request: predict_pb2.PredictRequest, inputs_of: Callable[[str], Infos]) -> bool:
    """Fills a predict request from a JSON body.

    Args:
        body: {"signature_name": ..., "instances": [...]} or {"signature_name": ..., "inputs": ...}.
        request: gets the signature's name and the inputs; its model is chosen already.
        inputs_of: returns the inputs of the signature of a name, "" for the default one.

    Returns:
        Whether the inputs came by row ("instances"), which is how the answer is to be written.

    Raises:
        ServingError: INVALID_ARGUMENT for a body that is not of that form, or what `inputs_of` raises.
    """
    document = _parse(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {_debug(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    request.model_spec.signature_name = _encode(name).decode()
    infos = inputs_of(name)
    if not infos:
        raise invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {_debug(document)} Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    if "instances" in document:
        _fill_rows(document["instances"], document, infos, request)
        return True
    if "inputs" in document:
        _fill_columns(document["inputs"], infos, request)
        return False
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        # Like TensorFlow Serving, stops where the document is complete.
        document, _ = json.JSONDecoder().raw_decode(body.decode("utf-8-sig").lstrip(" \t\r\n"))
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid_argument(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_debug(document)} Is not object")
    return document


def _fill_rows(instances: Any, document: Any, infos: Infos, request: predict_pb2.PredictRequest) -> None:
    if not isinstance(instances, list):
        raise invalid_argument(f"JSON Value: {_debug(document)} Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument(f"JSON Value: {_debug(document)} No values in 'instances' array")
    named = _is_plain_object(instances[0])
    if not isinstance(instances[0], dict) and len(infos) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    columns: dict[str, list[Any]] = {name: [] for name in infos}
    shapes: dict[str, tuple[int, ...]] = {}
    for index, element in enumerate(instances):
        if _is_plain_object(element) != named:
            found, expected = ("list", "object") if named else ("object", "value/list")
            raise invalid_argument(f"Expecting {expected} but got {found} at item {index} of input list")
        row = element if named else {next(iter(infos)): element}
        for name, value in row.items():
            try:
                leaves = _instance_leaves(name, value, infos, shapes)
            except ServingError as error:
                raise invalid_argument(
                    f"Failed to process element: {index} key: {name} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: {error}"
                ) from None
            columns[name] += leaves
        if row.keys() != infos.keys():
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_debug(element)} "
                f"keys must be equal to: {','.join(sorted(infos))}"
            )
    for name, leaves in columns.items():
        _fill_tensor(request.inputs[name], infos[name].dtype, (len(instances), *shapes[name]), leaves)


def _instance_leaves(name: str, value: Any, infos: Infos, shapes: dict[str, tuple[int, ...]]) -> list[Any]:
    if name not in infos:
        raise invalid_argument(f"JSON object: does not have named input: {name}")
    shape = _shape(value)
    leaves = _leaves(value, shape, infos[name].dtype)
    expected = shapes.setdefault(name, shape)
    if shape != expected:
        raise invalid_argument(f"Expecting shape {_shape_text(expected)} but got: {_shape_text(shape)}")
    return leaves


def _fill_columns(inputs: Any, infos: Infos, request: predict_pb2.PredictRequest) -> None:
    if not _is_plain_object(inputs):
        if len(infos) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        inputs = {next(iter(infos)): inputs}
    for name, info in infos.items():
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        shape = _shape(inputs[name])
        _fill_tensor(request.inputs[name], info.dtype, shape, _leaves(inputs[name], shape, info.dtype))


def _is_plain_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: dict[str, Any]) -> bool:
    return len(value) == 1 and isinstance(value.get(BASE64), str)


def _shape(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _leaves(value: Any, shape: tuple[int, ...], dtype: int) -> list[Any]:
    """Returns the scalars of nested lists in order. Raises ServingError where they are no tensor of that shape."""
    items = [value]
    for level, size in enumerate(shape):
        for item in items:
            if not isinstance(item, list):
                raise invalid_argument(
                    f"JSON Value: {_debug(item)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape)}"
                )
            if len(item) != size:
                raise invalid_argument(
                    f"Encountered list at unexpected size: {len(item)} at level: {level} expected size: {size}"
                )
        items = list(itertools.chain.from_iterable(items))
    _check_leaves(items, len(shape), dtype)
    return items


def _check_leaves(leaves: list[Any], rank: int, dtype: int) -> None:
    types = set(map(type, leaves))
    if list in types:
        raise invalid_argument(f"Encountered list at unexpected level: {rank} expected < {rank}")
    allowed = JSON_TYPES.get(dtype)
    if allowed is None:
        raise invalid_argument(f"Conversion of JSON Value to type: {type_name(dtype)} is not supported")
    if not types <= set(allowed):
        wrong = next(leaf for leaf in leaves if type(leaf) not in allowed)
        raise invalid_argument(
            f"JSON Value: {_debug(wrong)} Type: {_json_type(wrong)} is not of expected type: {type_name(dtype)}"
        )


def _fill_tensor(tensor: tensor_pb2.TensorProto, dtype: int, shape: tuple[int, ...], leaves: list[Any]) -> None:
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    if dtype == types_pb2.DT_STRING:
        tensor.string_val.extend(_string(leaf) for leaf in leaves)
    else:
        tensor.tensor_content = _numbers(leaves, dtype).tobytes()


def _string(leaf: str | dict[str, Any]) -> bytes:
    if isinstance(leaf, str):
        return _encode(leaf)
    if not _is_base64(leaf):
        raise invalid_argument(f"JSON Value: {_debug(leaf)} not formatted correctly for base64 data")
    text = "".join(leaf[BASE64].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Unable to base64 decode") from None


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise invalid_argument(
            f"JSON Parse error: The surrogate pair in string is invalid. at: {error.start}"
        ) from None


def _numbers(leaves: list[Any], dtype: int) -> np.ndarray:
    kind = tf.dtypes.as_dtype(dtype).as_numpy_dtype
    try:
        if not np.issubdtype(kind, np.integer):
            with np.errstate(over="ignore"):
                return np.array(leaves, kind)
        limits = np.iinfo(kind)
        wrong = [
            value for value in (min(leaves, default=0), max(leaves, default=0)) if not limits.min <= value <= limits.max
        ]
        if not wrong:
            return np.array(leaves, kind)
    except OverflowError:
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.") from None
    raise invalid_argument(f"JSON Value: {_debug(wrong[0])} Type: Number is not of expected type: {type_name(dtype)}")


def _debug(value: Any) -> str:
    try:
        return json.dumps(value)[:_MOST_DEBUG_CHARACTERS]
    except RecursionError:
        return "[deeply nested]"


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    kinds: dict[type, str] = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
    return kinds.get(type(value), "Number")


def type_name(dtype: int) -> str:
    """Returns the name of a TensorFlow type as its messages write it, such as "uint8"."""
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
