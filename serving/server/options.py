"""Every setting of the server, named as the flag of TensorFlow Serving that has the same meaning."""

from __future__ import annotations

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """The flags of `segpipe serve`; its help says what each means.

    Attributes:
        host: address to listen at.
        port: of gRPC, 0 for a free one.
        rest_api_port: of REST, 0 for a free one, None for no REST.
        rest_api_timeout_in_ms: of a REST call.
        rest_api_num_threads: REST calls that are worked on at once.
        model_name: name of the single model.
        model_base_path: absolute folder of its versions, or "" where a file names the models.
        model_config_file: text `ModelServerConfig`.
        model_config_file_poll_wait_seconds: between looks at that file; 0 looks once.
        file_system_poll_wait_seconds: between looks at the version folders; 0 looks once.
        max_num_load_retries: attempts after a failed load.
        load_retry_interval_micros: between attempts, in microseconds.
        num_load_threads: versions that load at once.
        enable_model_warmup: whether a new version's warm-up requests are sent.
        num_request_iterations_for_warmup: how often each is sent.
        allow_version_labels_for_unavailable_models: whether a new label may point to a version not loaded yet.
        enable_batching: whether requests are merged.
        batching_parameters_file: text `BatchingParameters`.
        monitoring_config_file: text `MonitoringConfig`.
        ssl_config_file: text `SSLConfig`.
        enable_serialization_as_tensor_content: whether numbers in answers travel as raw bytes.
        max_concurrent_requests: requests that run at once, without batching.
        max_queue: requests that wait; the next one is refused.
        max_message_bytes: largest request.
        max_image_pixels: most height times width of an encoded image.
        max_images_per_request: most rows of an input.
        drain_seconds: how long running requests may take after SIGTERM.
        ui_port: of the page for looking at answers, 0 for a free one, None for no page.
        ui_samples: folder of images that the page offers, or None.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    rest_api_port: int | None = None
    rest_api_timeout_in_ms: int = 30_000
    rest_api_num_threads: int = 4 * (os.cpu_count() or 1)
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str | None = None
    model_config_file_poll_wait_seconds: float = 0
    file_system_poll_wait_seconds: float = 1
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 1
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 1
    allow_version_labels_for_unavailable_models: bool = False
    enable_batching: bool = False
    batching_parameters_file: str | None = None
    monitoring_config_file: str | None = None
    ssl_config_file: str | None = None
    enable_serialization_as_tensor_content: bool = False
    max_concurrent_requests: int = os.cpu_count() or 1
    max_queue: int = 64
    max_message_bytes: int = 64 << 20
    max_image_pixels: int = 4096 * 4096
    max_images_per_request: int = 128
    drain_seconds: float = 30
    ui_port: int | None = None
    ui_samples: str | None = None
