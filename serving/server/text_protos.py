"""TensorFlow Serving's configuration files: protocol buffers written as text.

`tensorflow-serving-api` has no classes for batching, monitoring and TLS files. Theirs are built here from the fields
of `session_bundle_config.proto`, `monitoring_config.proto` and `ssl_config.proto` that this server supports.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, message_factory, text_format
from google.protobuf.message import Message

from components.errors import UsageError

_FILE = """
name: "serving/server/text_protos.proto" package: "tensorflow.serving" syntax: "proto3"
message_type { name: "Int64Value" field { name: "value" number: 1 type: TYPE_INT64 } }
message_type { name: "BatchingParameters"
  field { name: "max_batch_size" number: 1 type: TYPE_MESSAGE type_name: ".tensorflow.serving.Int64Value" }
  field { name: "batch_timeout_micros" number: 2 type: TYPE_MESSAGE type_name: ".tensorflow.serving.Int64Value" }
  field { name: "max_enqueued_batches" number: 3 type: TYPE_MESSAGE type_name: ".tensorflow.serving.Int64Value" }
  field { name: "num_batch_threads" number: 4 type: TYPE_MESSAGE type_name: ".tensorflow.serving.Int64Value" } }
message_type { name: "SSLConfig"
  field { name: "server_key" number: 1 type: TYPE_STRING } field { name: "server_cert" number: 2 type: TYPE_STRING }
  field { name: "custom_ca" number: 3 type: TYPE_STRING } field { name: "client_verify" number: 4 type: TYPE_BOOL } }
message_type { name: "PrometheusConfig"
  field { name: "enable" number: 1 type: TYPE_BOOL } field { name: "path" number: 2 type: TYPE_STRING } }
message_type { name: "MonitoringConfig"
  field { name: "prometheus_config" number: 1 type: TYPE_MESSAGE type_name: ".tensorflow.serving.PrometheusConfig" } }
"""
_Message = TypeVar("_Message", bound=Message)

_file = text_format.Parse(_FILE, descriptor_pb2.FileDescriptorProto())
_classes: dict[str, Any] = message_factory.GetMessages([_file])
BatchingParameters = _classes["tensorflow.serving.BatchingParameters"]
SSLConfig = _classes["tensorflow.serving.SSLConfig"]
MonitoringConfig = _classes["tensorflow.serving.MonitoringConfig"]


def read_text_proto(flag: str, path: str, message: _Message) -> _Message:
    """Fills an empty message from a text file that a flag names. Raises UsageError if the file is missing or wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            return text_format.Parse(file.read(), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        kind, known = type(message).__name__, ", ".join(field.name for field in message.DESCRIPTOR.fields)
        raise UsageError(
            f"{flag} {path}: found {error}, expected the text form of a {kind} with the fields {known}"
        ) from None
