"""TensorFlow Serving's configuration files: protocol buffers written as text.

`tensorflow-serving-api` ships no classes for batching, monitoring and TLS files, so theirs are built here,
with the fields of `session_bundle_config.proto`, `monitoring_config.proto` and `ssl_config.proto`.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

from google.protobuf import descriptor_pb2, message_factory, text_format, wrappers_pb2
from google.protobuf.message import Message

from components.errors import UsageError

_PACKAGE = "tensorflow.serving"
_Field = descriptor_pb2.FieldDescriptorProto
_Message = TypeVar("_Message", bound=Message)

_BATCHING: list[tuple[str, int, Any]] = [
    ("max_batch_size", 1, wrappers_pb2.Int64Value),
    ("batch_timeout_micros", 2, wrappers_pb2.Int64Value),
    ("max_enqueued_batches", 3, wrappers_pb2.Int64Value),
    ("num_batch_threads", 4, wrappers_pb2.Int64Value),
    ("thread_pool_name", 5, wrappers_pb2.StringValue),
    ("pad_variable_length_inputs", 7, _Field.TYPE_BOOL),
    ("enable_large_batch_splitting", 8, wrappers_pb2.BoolValue),
    ("max_execution_batch_size", 9, wrappers_pb2.Int64Value),
]
_SSL: list[tuple[str, int, Any]] = [
    ("server_key", 1, _Field.TYPE_STRING),
    ("server_cert", 2, _Field.TYPE_STRING),
    ("custom_ca", 3, _Field.TYPE_STRING),
    ("client_verify", 4, _Field.TYPE_BOOL),
]
_PROMETHEUS: list[tuple[str, int, Any]] = [("enable", 1, _Field.TYPE_BOOL), ("path", 2, _Field.TYPE_STRING)]


def _add_message(file: descriptor_pb2.FileDescriptorProto, name: str, fields: list[tuple[str, int, Any]]) -> Any:
    message = file.message_type.add(name=name)
    for field_name, number, kind in fields:
        field = message.field.add(name=field_name, number=number, label=_Field.LABEL_OPTIONAL)
        if isinstance(kind, int):
            field.type = cast(Any, kind)
        else:
            field.type = _Field.TYPE_MESSAGE
            field.type_name = kind if isinstance(kind, str) else f".{kind.DESCRIPTOR.full_name}"
    return message


def _build() -> dict[str, Any]:
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/server/text_protos.proto", package=_PACKAGE, syntax="proto3", dependency=[wrappers.name]
    )
    batching = _add_message(file, "BatchingParameters", _BATCHING)
    batching.field.add(name="allowed_batch_sizes", number=6, label=_Field.LABEL_REPEATED, type=_Field.TYPE_INT64)
    _add_message(file, "SSLConfig", _SSL)
    _add_message(file, "PrometheusConfig", _PROMETHEUS)
    _add_message(file, "MonitoringConfig", [("prometheus_config", 1, f".{_PACKAGE}.PrometheusConfig")])
    return message_factory.GetMessages([wrappers, file])


_CLASSES = _build()
BatchingParameters = _CLASSES[f"{_PACKAGE}.BatchingParameters"]
SSLConfig = _CLASSES[f"{_PACKAGE}.SSLConfig"]
MonitoringConfig = _CLASSES[f"{_PACKAGE}.MonitoringConfig"]


def read_text_proto(flag: str, path: str, message: _Message) -> _Message:
    """Fills a message from a text file and returns it.

    Args:
        flag: the command line's name for the file, for messages.
        path: a text file.
        message: an empty protocol buffer.

    Raises:
        UsageError: there is no such file, or it is not the text form of such a message.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag} {path}: found {error}, expected a readable text file") from None
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        kind = type(message).__name__
        raise UsageError(f"{flag} {path}: found {error}, expected the text form of a {kind}") from None
