"""The messages that the client declares are those of TensorFlow Serving, byte for byte."""

import pytest
from google.protobuf import descriptor_pb2, wrappers_pb2
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.client import protocol

_OFFICIAL = {
    "Int64Value": wrappers_pb2.Int64Value,
    "ModelSpec": model_pb2.ModelSpec,
    "Tensor": tensor_pb2.TensorProto,
    "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse,
    "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
    "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
    "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
    "ReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
    "ReloadConfigResponse": model_management_pb2.ReloadConfigResponse,
    "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap,
    "SignatureDef": meta_graph_pb2.SignatureDef,
}


def _fields(descriptor):
    """Returns a message's fields as they are declared, by name."""
    # A FieldDescriptor has the label too, but protobuf 6 deprecates it there.
    declaration = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(declaration)
    return {field.name: field for field in declaration.field}


def _assert_same_on_the_wire(declared, official, seen):
    """Compares the fields of two descriptors and of the messages in them."""
    if (declared.name, official.full_name) in seen:
        return
    seen.add((declared.name, official.full_name))
    officials = _fields(official)
    for name, field in _fields(declared).items():
        other = officials[name]
        kinds = {field.TYPE_ENUM: {field.TYPE_INT32}, field.TYPE_MESSAGE: {field.TYPE_MESSAGE, field.TYPE_BYTES}}
        assert (field.number, field.label) == (other.number, other.label), f"{declared.name}.{name}"
        assert field.type in kinds.get(other.type, {other.type}), f"{declared.name}.{name}"
        inside = declared.fields_by_name[name].message_type
        if inside is not None:
            _assert_same_on_the_wire(inside, official.fields_by_name[name].message_type, seen)


@pytest.mark.parametrize("name", _OFFICIAL)
def test_every_declared_field_is_the_official_one(name):
    _assert_same_on_the_wire(protocol.MESSAGES[name].DESCRIPTOR, _OFFICIAL[name].DESCRIPTOR, set())


def test_every_declared_message_is_compared():
    seen = set()
    for name, official in _OFFICIAL.items():
        _assert_same_on_the_wire(protocol.MESSAGES[name].DESCRIPTOR, official.DESCRIPTOR, seen)

    assert {declared for declared, _ in seen} == set(protocol.MESSAGES)


def test_types_are_numbered_as_tensorflow_numbers_them():
    names = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "bool": "DT_BOOL", "bfloat16": "DT_BFLOAT16"}

    for number, name in protocol.DTYPES.items():
        assert types_pb2.DataType.Name(number) == names.get(name, f"DT_{name.upper()}")


class _MethodNames:
    """A channel that returns the name of each method, so that a stub has the names as attributes."""

    def unary_unary(self, method, *_, **__):
        return method


def test_the_methods_are_the_services():
    prediction = prediction_service_pb2_grpc.PredictionServiceStub(_MethodNames())
    status = model_service_pb2_grpc.ModelServiceStub(_MethodNames())

    assert prediction.Predict == protocol.PREDICT
    assert prediction.GetModelMetadata == protocol.GET_MODEL_METADATA
    assert status.GetModelStatus == protocol.GET_MODEL_STATUS
    assert status.HandleReloadConfigRequest == protocol.RELOAD_CONFIG
