"""Reads TensorFlow Serving's configuration files: protocol buffers in text format.

`tensorflow-serving-api` has no classes for batching, monitoring and TLS files. Theirs are declared here, with the
fields of `session_bundle_config.proto`, `monitoring_config.proto` and `ssl_config.proto` that this server supports.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from components.errors import UsageError
from serving.client import protocol

_MESSAGES = protocol.declare(
    "segpipe.serving_files",
    {
        "Int64Value": "int64 value = 1",
        "BatchingParameters": "Int64Value max_batch_size = 1; Int64Value batch_timeout_micros = 2; "
        "Int64Value max_enqueued_batches = 3; Int64Value num_batch_threads = 4",
        "SSLConfig": "string server_key = 1; string server_cert = 2; string custom_ca = 3; bool client_verify = 4",
        "PrometheusConfig": "bool enable = 1; string path = 2",
        "MonitoringConfig": "PrometheusConfig prometheus_config = 1",
    },
)
BatchingParameters = _MESSAGES["BatchingParameters"]
SSLConfig = _MESSAGES["SSLConfig"]
MonitoringConfig = _MESSAGES["MonitoringConfig"]

_Message = TypeVar("_Message", bound=Message)


def read_text_proto(flag: str, path: str, message: _Message) -> _Message:
    """Fills an empty message from the text file of a flag. Raises UsageError if it cannot be read or parsed."""
    try:
        with open(path, encoding="utf-8") as file:
            return text_format.Parse(file.read(), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        kind, known = type(message).__name__, ", ".join(field.name for field in message.DESCRIPTOR.fields)
        raise UsageError(
            f"{flag} {path}: found {error}, expected the text form of a {kind} with the fields {known}"
        ) from None
