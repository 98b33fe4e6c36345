"""The server's flags: default, help text and limits. `segpipe serve` builds its command line from them."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

MODELS = "Models"
PORTS = "Ports and safety"
LOADING = "Versions and loading"
LIMITS = "Load and limits"
PAGE = "Page"
LOG = "Request log"
PANELS = (MODELS, PORTS, LOADING, LIMITS, PAGE, LOG)

# TensorFlow Serving's flags that are accepted without effect. Together with the fields of `ServeOptions` that are not
# `own`, and --version, these are all flags of tensorflow_serving/model_servers/main.cc at 9d981c5.
IGNORED_FLAGS = (
    "enable_grpc_healthcheck_service",
    "enable_per_model_batching_parameters",
    "enable_profiler",
    "enable_signature_method_name_check",
    "flush_filesystem_caches",
    "grpc_max_threads",
    "mixed_precision",
    "num_tflite_interpreters_per_pool",
    "num_tflite_pools",
    "num_unload_threads",
    "per_process_gpu_memory_fraction",
    "platform_config_file",
    "prefer_tflite_model",
    "remove_unused_fields_from_bundle_metagraph",
    "rest_api_enable_cors_support",
    "saved_model_tags",
    "skip_initialize_tpu",
    "tensorflow_inter_op_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_session_config_file",
    "tensorflow_session_parallelism",
    "thread_pool_factory_config_file",
    "use_alts_credentials",
    "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled",
)

_PORT: dict[str, Any] = {"min": 0, "max": 65535}


def _flag(default: Any, panel: str, text: str, *, own: bool = False, **settings: Any) -> Any:
    """Returns a flag's field. `panel` is its group in the help; TensorFlow Serving has no `own` flags."""
    metadata = {"own": own, "option": {"help": text, "rich_help_panel": panel, **settings}}
    return dataclasses.field(default=default, metadata=metadata)


_own = functools.partial(_flag, own=True)


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """The values of all flags. Those that are not `own` mean what they mean in TensorFlow Serving."""

    model_base_path: str = _flag(
        "", MODELS, "Folder with a numbered subfolder per version, such as WORKDIR/serving/segpipe."
    )
    model_name: str = _flag("default", MODELS, "Name of this model in requests.")
    model_config_file: str | None = _flag(
        None, MODELS, "Text ModelServerConfig with models, version policies and labels; replaces both flags above."
    )
    model_config_file_poll_wait_seconds: float = _flag(
        0, MODELS, "Seconds between reads of --model_config_file; 0 reads it once."
    )
    host: str = _own("127.0.0.1", PORTS, "Address to listen on; 0.0.0.0 accepts other machines.", envvar="SEGPIPE_HOST")
    port: int = _flag(8500, PORTS, "gRPC port; 0 picks a free one, or none with --grpc_socket_path.", **_PORT)
    grpc_socket_path: str = _flag("", PORTS, "Unix socket to serve gRPC on, in addition to the port.")
    grpc_channel_arguments: str = _flag(
        "", PORTS, "Comma-separated arguments of the gRPC server, such as grpc.max_connection_age_ms=2000."
    )
    rest_api_port: int | None = _flag(None, PORTS, "REST port; 0 picks a free one. Default: no REST.", **_PORT)
    rest_api_timeout_in_ms: int = _flag(30_000, PORTS, "Timeout of a REST call, in milliseconds.")
    rest_api_num_threads: int = _flag(4 * (os.cpu_count() or 1), PORTS, "REST calls to process in parallel.", min=1)
    ssl_config_file: str | None = _flag(None, PORTS, "Text SSLConfig: TLS and client certificates for gRPC.")
    monitoring_config_file: str | None = _flag(
        None, PORTS, "Text MonitoringConfig: Prometheus metrics on the REST port."
    )
    drain_seconds: float = _own(30, PORTS, "Seconds for running requests to finish after SIGTERM.")
    file_system_poll_wait_seconds: float = _flag(1, LOADING, "Seconds between checks for new versions; 0 checks once.")
    max_num_load_retries: int = _flag(5, LOADING, "Retries after a version fails to load.")
    load_retry_interval_micros: int = _flag(60_000_000, LOADING, "Pause between load attempts, in microseconds.")
    num_load_threads: int = _flag(1, LOADING, "Versions to load in parallel.")
    enable_model_warmup: bool = _flag(True, LOADING, "Run a version's own warm-up requests before it serves.")
    num_request_iterations_for_warmup: int = _flag(1, LOADING, "Runs of each warm-up request.")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, LOADING, "Accept new labels for versions that are not loaded yet."
    )
    enable_batching: bool = _flag(False, LIMITS, "Merge waiting requests into batches.")
    batching_parameters_file: str | None = _flag(None, LIMITS, "Text BatchingParameters: batch sizes and delays.")
    max_concurrent_requests: int = _own(
        os.cpu_count() or 1, LIMITS, "Requests to run in parallel without batching.", min=1
    )
    max_queue: int = _own(64, LIMITS, "Requests that may wait; further ones are rejected.", min=0)
    max_queue_wait_in_ms: int = _own(1000, LIMITS, "Milliseconds that a request may wait before it is rejected.", min=1)
    max_message_bytes: int = _own(64 << 20, LIMITS, "Largest request, in bytes.", min=1)
    max_image_pixels: int = _own(4096 * 4096, LIMITS, "Largest image, in pixels (height times width).", min=1)
    max_images_per_request: int = _own(128, LIMITS, "Largest number of images in a request.", min=1)
    enable_serialization_as_tensor_content: bool = _flag(
        False, LIMITS, "Return tensors as raw bytes in tensor_content."
    )
    ui: bool = _own(False, PAGE, "Also serve a web page that shows predictions.")
    ui_port: int = _own(8502, PAGE, "Port of the web page; 0 picks a free one.", **_PORT)
    ui_samples: str | None = _own(None, PAGE, "Folder of sample images for the web page.")
    request_log_dir: str | None = _own(None, LOG, "Folder to log predictions to, for segpipe watch.")
    request_log_sampling_rate: float = _own(1.0, LOG, "Fraction of predictions to log, 0 to 1.", min=0, max=1)
