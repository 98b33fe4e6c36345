"""Every flag of the server: its default, its help and its limits. `segpipe serve` builds its command line from them."""

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

# Flags of TensorFlow Serving that change nothing here. With the other fields of `ServeOptions` that are not `own`, and
# --version, these are all flags in tensorflow_serving/model_servers/main.cc at 9d981c5.
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
    """Returns the field of a flag: `panel` is its group in the help, `own` flags are not TensorFlow Serving's."""
    metadata = {"own": own, "option": {"help": text, "rich_help_panel": panel, **settings}}
    return dataclasses.field(default=default, metadata=metadata)


_own = functools.partial(_flag, own=True)


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """The flags. Those that are not `own` have the name and the meaning of TensorFlow Serving's."""

    model_base_path: str = _flag("", MODELS, "Folder of numbered versions, such as WORKDIR/serving/fcn8.")
    model_name: str = _flag("default", MODELS, "Name that requests use for it.")
    model_config_file: str | None = _flag(
        None, MODELS, "Text ModelServerConfig: several models, version policies, labels. Replaces the two above."
    )
    model_config_file_poll_wait_seconds: float = _flag(0, MODELS, "Read it again every so many seconds; 0 never.")
    host: str = _own("127.0.0.1", PORTS, "Address to listen at; 0.0.0.0 lets other machines in.", envvar="SEGPIPE_HOST")
    port: int = _flag(
        8500, PORTS, "gRPC port; 0 takes a free one and prints it, or none with --grpc_socket_path.", **_PORT
    )
    grpc_socket_path: str = _flag("", PORTS, "Unix socket to listen at for gRPC, besides the port.")
    grpc_channel_arguments: str = _flag(
        "", PORTS, "Arguments of the gRPC server, such as grpc.max_connection_age_ms=2000, with commas between them."
    )
    rest_api_port: int | None = _flag(None, PORTS, "REST port; 0 takes a free one. Left out: no REST.", **_PORT)
    rest_api_timeout_in_ms: int = _flag(30_000, PORTS, "Longest REST call, in milliseconds.")
    rest_api_num_threads: int = _flag(4 * (os.cpu_count() or 1), PORTS, "REST calls that are worked on at once.", min=1)
    ssl_config_file: str | None = _flag(None, PORTS, "Text SSLConfig: TLS, and client certificates, for gRPC.")
    monitoring_config_file: str | None = _flag(
        None, PORTS, "Text MonitoringConfig: Prometheus metrics on the REST port."
    )
    drain_seconds: float = _own(30, PORTS, "After SIGTERM, running requests have this long.")
    file_system_poll_wait_seconds: float = _flag(1, LOADING, "Look for new versions every so many seconds; 0 once.")
    max_num_load_retries: int = _flag(5, LOADING, "Attempts after a version failed to load.")
    load_retry_interval_micros: int = _flag(60_000_000, LOADING, "Between attempts, in microseconds.")
    num_load_threads: int = _flag(1, LOADING, "Versions that load at once.")
    enable_model_warmup: bool = _flag(True, LOADING, "Send a version the warm-up requests inside it before it serves.")
    num_request_iterations_for_warmup: int = _flag(1, LOADING, "How often each of them is sent.")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, LOADING, "Let a new label point to a version that is not loaded yet."
    )
    enable_batching: bool = _flag(False, LIMITS, "Merge requests that wait into one run.")
    batching_parameters_file: str | None = _flag(None, LIMITS, "Text BatchingParameters: sizes and delays.")
    max_concurrent_requests: int = _own(
        os.cpu_count() or 1, LIMITS, "Requests that run at once without batching.", min=1
    )
    max_queue: int = _own(64, LIMITS, "Requests that wait; the next is refused at once.", min=0)
    max_queue_wait_in_ms: int = _own(
        1000, LIMITS, "Longest wait of a request for its turn, in milliseconds; then it is refused.", min=1
    )
    max_message_bytes: int = _own(64 << 20, LIMITS, "Largest request, in bytes.", min=1)
    max_image_pixels: int = _own(4096 * 4096, LIMITS, "Height times width of the largest image that is decoded.", min=1)
    max_images_per_request: int = _own(128, LIMITS, "Most images in one request.", min=1)
    enable_serialization_as_tensor_content: bool = _flag(False, LIMITS, "Answer with raw bytes in tensor_content.")
    ui: bool = _own(False, PAGE, "Also serve a page to look at answers.")
    ui_port: int = _own(8502, PAGE, "Its port; 0 takes a free one.", **_PORT)
    ui_samples: str | None = _own(None, PAGE, "Folder of images that it offers.")
    request_log_dir: str | None = _own(None, LOG, "Folder for the predictions that were answered, for segpipe watch.")
    request_log_sampling_rate: float = _own(1.0, LOG, "Proportion of them that is written, 0 to 1.", min=0, max=1)
