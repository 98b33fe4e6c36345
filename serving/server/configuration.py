"""Reads and checks the configuration that the flags name: models, batching, metrics, TLS and gRPC arguments.

Nothing here imports TensorFlow, so `segpipe serve` reports wrong flags before it loads TensorFlow. Files are protocol
buffers in text format. `tensorflow-serving-api` has no classes for the files of batching, monitoring and TLS. Those
messages are declared here, with the fields of `session_bundle_config.proto`, `monitoring_config.proto` and
`ssl_config.proto` that this server supports.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components import files
from components.errors import UsageError
from serving import request_log
from serving.client import protocol
from serving.server.errors import ServingError, failed_precondition, invalid_argument
from serving.server.options import ServeOptions

_BATCHING_FLAG = "--batching_parameters_file"
_MONITORING_FLAG = "--monitoring_config_file"
_TLS_FLAG = "--ssl_config_file"
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
_Message = TypeVar("_Message", bound=Message)


def check_flags(options: ServeOptions) -> None:
    """Checks every file that the flags name, and makes the folder of the request log. Raises UsageError."""
    named = (
        options.model_config_file,
        options.ssl_config_file,
        options.batching_parameters_file,
        options.monitoring_config_file,
    )
    if any(path and Path(path).is_fifo() for path in named):
        # A pipe, such as bash's <(command), can be read only once: by the server.
        return
    first_config(options)
    if options.ssl_config_file:
        read_credentials(options.ssl_config_file)
    read_batching_options(options.batching_parameters_file)
    read_monitoring_path(options.monitoring_config_file)
    channel_arguments(options.grpc_channel_arguments)
    if options.request_log_dir is not None:
        request_log.prepare_folder(options.request_log_dir)


def first_config(options: ServeOptions) -> Any:
    """Returns the `ModelServerConfig` of the flags. Raises UsageError if it can never be applied."""
    path = options.model_config_file
    config = ModelServerConfig() if path is None else read_model_config(path)
    if path is None:
        add = config.model_config_list.config.add
        add(name=options.model_name, base_path=options.model_base_path, model_platform="tensorflow")
    try:
        models = check_config(config)
    except ServingError as error:
        raise UsageError(f"{path or '--model_base_path'}: {error.message}") from None
    labelled = [model.name for model in models if model.version_labels]
    if labelled and not options.allow_version_labels_for_unavailable_models:
        raise UsageError(
            f"--model_config_file {path}: found version_labels of model {labelled[0]}, expected no labels because no "
            "version is loaded at startup; add --allow_version_labels_for_unavailable_models"
        )
    if options.ui and not models:
        raise UsageError(
            f"--ui: found no model in {path}, expected at least one, the first of which the page shows; "
            "add a model or leave out --ui"
        )
    return config


def read_model_config(path: str) -> Any:
    """Reads a text `ModelServerConfig`. Raises UsageError."""
    return _read("--model_config_file", path, ModelServerConfig())


def check_config(config: Any) -> list[Any]:
    """Returns the `ModelConfig`s of a configuration. Raises ServingError if one cannot be served."""
    if config.WhichOneof("config") == "custom_model_config":
        raise failed_precondition("found a custom_model_config, expected a model_config_list")
    models = list(config.model_config_list.config)
    names: set[str] = set()
    for model in models:
        name, path, platform = model.name, model.base_path, model.model_platform
        if name in names:
            raise invalid_argument(f"Illegal to list model {name} multiple times in config list")
        names.add(name)
        if not name:
            raise invalid_argument("Found a ModelConfig without a name, expected the name for requests")
        if not files.is_remote(path) and not path.startswith("/"):
            raise invalid_argument(f"Expected model {name} to have an absolute path or URI; got base_path()={path}")
        # The deprecated field model_type is TENSORFLOW = 1.
        if platform != "tensorflow" and (platform or model.model_type != 1):
            raise invalid_argument(f'Model {name}: found model_platform "{platform}", expected "tensorflow"')
    return models


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """TensorFlow Serving's `BatchingParameters` and their defaults. Batch sizes count rows."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)


def read_batching_options(path: str | None) -> BatchingOptions:
    """Reads a batching parameters file; without one, returns the defaults. Raises UsageError."""
    if path is None:
        return BatchingOptions()
    parameters = _read(_BATCHING_FLAG, path, _MESSAGES["BatchingParameters"]())
    values = {field.name: value.value for field, value in parameters.ListFields()}
    for name, value in values.items():
        minimum = 0 if name == "batch_timeout_micros" else 1
        if value < minimum:
            raise UsageError(f"{_BATCHING_FLAG} {path}: {name} is {value}, expected at least {minimum}")
    return BatchingOptions(**values)


def read_monitoring_path(path: str | None) -> str | None:
    """Returns the URL path for metrics from a monitoring file, None if they are off. Raises UsageError."""
    if path is None:
        return None
    config = _read(_MONITORING_FLAG, path, _MESSAGES["MonitoringConfig"]()).prometheus_config
    address = str(config.path or protocol.METRICS_PATH)
    if config.enable and not re.fullmatch(r"/[^{}]*", address):
        raise UsageError(
            f"{_MONITORING_FLAG} {path}: found {address!r} as path of prometheus_config, "
            f"expected a path with a slash in front and without braces, such as {protocol.METRICS_PATH}"
        )
    return address if config.enable else None


def read_credentials(path: str) -> grpc.ServerCredentials:
    """Reads a text `SSLConfig` that contains keys and certificates as PEM text.

    With `client_verify`, clients need a certificate that `custom_ca` signed. Raises UsageError if the file cannot be
    read, a field is missing, or key and certificate do not match.
    """
    config = _read(_TLS_FLAG, path, _MESSAGES["SSLConfig"]())
    for field in ("server_key", "server_cert", "custom_ca")[: 3 if config.client_verify else 2]:
        if "-----BEGIN" not in getattr(config, field):
            raise UsageError(
                f"{_TLS_FLAG} {path}: found no PEM text in {field}, expected the {field} itself, not a file name"
            )
    pairs = [(config.server_key.encode(), config.server_cert.encode())]
    credentials = grpc.ssl_server_credentials(pairs, config.custom_ca.encode() or None, config.client_verify)
    # gRPC parses credentials only when it opens a port, with the same error as for a port in use. So try them first.
    trial = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    try:
        trial.add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError:
        raise UsageError(
            f"{_TLS_FLAG} {path}: found a server_key, server_cert or custom_ca that TLS cannot use, expected complete "
            "PEM texts and a server_key that matches server_cert; check them with openssl x509 and openssl pkey"
        ) from None
    # gRPC frees the port only of a server that was started.
    trial.start()
    trial.stop(None).wait()
    return credentials


def channel_arguments(text: str) -> dict[str, int | str]:
    """Parses gRPC arguments such as `grpc.max_connection_age_ms=2000,grpc.primary_user_agent=x`.

    A whole number becomes an int, as in `Server::BuildAndStart` in tensorflow_serving/model_servers/server.cc at
    9d981c5. Raises UsageError for an argument without a name or a value.
    """
    arguments: dict[str, int | str] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if not name or not value:
            raise UsageError(
                f"--grpc_channel_arguments: found {part!r}, expected NAME=VALUE, comma-separated, "
                "such as grpc.max_connection_age_ms=2000"
            )
        try:
            arguments[name] = int(value)
        except ValueError:
            arguments[name] = value
    return arguments


def _read(flag: str, path: str, message: _Message) -> _Message:
    """Fills an empty message from the text file of a flag. Raises UsageError if it cannot be read or parsed."""
    try:
        with open(path, encoding="utf-8") as file:
            return text_format.Parse(file.read(), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        kind, known = type(message).__name__, ", ".join(field.name for field in message.DESCRIPTOR.fields)
        raise UsageError(
            f"{flag} {path}: found {error}, expected the text form of a {kind} with the fields {known}"
        ) from None
