"""The messages and methods of TensorFlow Serving's gRPC API that clients and releases need.

They are declared here because the stubs of tensorflow-serving-api import TensorFlow: eight seconds and half a gigabyte
for a client that only sends images. A test compares every declared field with those stubs.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto

# From tensorflow_serving/apis/{model,predict,get_model_status,get_model_metadata,model_management}.proto and
# tensorflow/core/{framework/tensor,framework/tensor_shape,protobuf/meta_graph}.proto. On the wire, a map is a repeated
# message of key and value, an enum is an int32, a field of a oneof is an ordinary field, and a message is bytes.
_DECLARATIONS = {
    "Int64Value": "int64 value = 1",
    "ModelSpec": "string name = 1; Int64Value version = 2; string signature_name = 3; string version_label = 4",
    "Dim": "int64 size = 1",
    "TensorShape": "repeated Dim dim = 2; bool unknown_rank = 3",
    "Tensor": "int32 dtype = 1; TensorShape tensor_shape = 2; bytes tensor_content = 4; repeated float float_val = 5; "
    "repeated int32 int_val = 7; repeated bytes string_val = 8; repeated int64 int64_val = 10",
    "NamedTensor": "string key = 1; Tensor value = 2",
    "PredictRequest": "ModelSpec model_spec = 1; repeated NamedTensor inputs = 2; repeated string output_filter = 3",
    "PredictResponse": "repeated NamedTensor outputs = 1; ModelSpec model_spec = 2",
    "GetModelStatusRequest": "ModelSpec model_spec = 1",
    "StatusProto": "int32 error_code = 1; string error_message = 2",
    "ModelVersionStatus": "int64 version = 1; int32 state = 2; StatusProto status = 3",
    "GetModelStatusResponse": "repeated ModelVersionStatus model_version_status = 1",
    "GetModelMetadataRequest": "ModelSpec model_spec = 1; repeated string metadata_field = 2",
    "ReloadConfigRequest": "bytes config = 1",
    "ReloadConfigResponse": "StatusProto status = 1",
    "Any": "string type_url = 1; bytes value = 2",
    "NamedAny": "string key = 1; Any value = 2",
    "GetModelMetadataResponse": "ModelSpec model_spec = 1; repeated NamedAny metadata = 2",
    "TensorInfo": "int32 dtype = 2; TensorShape tensor_shape = 3",
    "NamedTensorInfo": "string key = 1; TensorInfo value = 2",
    "SignatureDef": "repeated NamedTensorInfo inputs = 1; repeated NamedTensorInfo outputs = 2; string method_name = 3",
    "NamedSignatureDef": "string key = 1; SignatureDef value = 2",
    "SignatureDefMap": "repeated NamedSignatureDef signature_def = 1",
}

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD_CONFIG = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"

# `segpipe serve` lists its models, one a line, in the trailing metadata of GetModelStatus. TensorFlow Serving does not.
MODELS_HEADER = "segpipe-models-bin"

# URL path of the metrics if no file names another (util/prometheus_exporter.cc).
METRICS_PATH = "/monitoring/prometheus/metrics"

# tensorflow/core/framework/types.proto
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 7: "string", 9: "int64", 10: "bool", 14: "bfloat16"}
_STRING = 7
# Number types that the client sends and reads: the DataType and the field of `Tensor`.
_NUMBERS = {"float32": (1, "float_val"), "int64": (9, "int64_val")}


def _field(declaration: str, package: str, messages: Container[str]) -> Any:
    """Returns the descriptor of one field, such as `repeated Dim dim = 2`."""
    match = re.fullmatch(r"(repeated )?(\w+) (\w+) = (\d+)", declaration)
    assert match is not None, declaration
    repeated, kind, name, number = match.groups()
    field = _FIELD(name=name, number=int(number))
    field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    if kind in messages:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{kind}"
    else:
        field.type = getattr(_FIELD, f"TYPE_{kind.upper()}")
    return field


def declare(package: str, messages: Mapping[str, str]) -> dict[str, Any]:
    """Returns message classes by name, in a separate descriptor pool, so that TensorFlow's can be loaded as well.

    `messages` are the fields of each message as in a .proto file, separated by semicolons.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, declarations in messages.items():
        fields = [_field(declaration, package, messages) for declaration in declarations.split("; ")]
        file.message_type.add(name=name).field.extend(fields)
    classes = message_factory.GetMessages([file])
    return {name: classes[f"{package}.{name}"] for name in messages}


MESSAGES = declare("segpipe.client", _DECLARATIONS)

RESPONSES = {
    PREDICT: MESSAGES["PredictResponse"],
    GET_MODEL_METADATA: MESSAGES["GetModelMetadataResponse"],
    GET_MODEL_STATUS: MESSAGES["GetModelStatusResponse"],
    RELOAD_CONFIG: MESSAGES["ReloadConfigResponse"],
}


def methods(channel: Any) -> dict[str, Any]:
    """Returns the callables of a channel by method."""
    return {
        method: channel.unary_unary(method, lambda request: request.SerializeToString(), response.FromString)
        for method, response in RESPONSES.items()
    }


def strings_tensor(values: list[bytes]) -> Any:
    """Returns a tensor of strings, [B]."""
    tensor = MESSAGES["Tensor"](dtype=_STRING, string_val=values)
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def shape_of(tensor: Any) -> list[int]:
    """Returns a tensor's shape, with -1 for an unknown dimension."""
    return [dim.size for dim in tensor.tensor_shape.dim]


def strings_of(tensor: Any) -> list[bytes]:
    """Returns the values of a tensor of strings. Raises ValueError for another type."""
    if tensor.dtype != _STRING:
        raise ValueError(f"a tensor of type {DTYPES.get(tensor.dtype, tensor.dtype)} instead of string")
    return list(tensor.string_val)


def numbers_tensor(values: np.ndarray) -> Any:
    """Returns an array of float32 or int64 as a tensor of its shape."""
    tensor = MESSAGES["Tensor"](dtype=_NUMBERS[values.dtype.name][0], tensor_content=values.tobytes())
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def numbers_of(tensor: Any, dtype: str = "float32") -> np.ndarray:
    """Returns a tensor of float32 or int64 as an array of its shape. Raises ValueError for another type or size."""
    number, field = _NUMBERS[dtype]
    if tensor.dtype != number:
        raise ValueError(f"a tensor of type {DTYPES.get(tensor.dtype, tensor.dtype)} instead of {dtype}")
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape_of(tensor))
    values = np.array(getattr(tensor, field), dtype)
    # A single value fills the whole shape (tensorflow/core/framework/tensor.proto).
    return np.broadcast_to(values, shape_of(tensor)) if values.size == 1 else values.reshape(shape_of(tensor))
