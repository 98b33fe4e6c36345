"""`segpipe serve`: the local model server, with the flags of TensorFlow Serving's `tensorflow_model_server`."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from components.errors import UsageError

_MODELS = "Models"
_PORTS = "Ports and safety"
_LOADING = "Versions and loading"
_LIMITS = "Load and limits"
_PAGE = "Page"
_PANELS = (_MODELS, _PORTS, _LOADING, _LIMITS, _PAGE)

_PORT: dict[str, Any] = {"min": 0, "max": 65535}


class Switch(str, enum.Enum):
    """The values of a switch."""

    true = "true"
    false = "false"


class FlagsWithValues(TyperCommand):
    """Takes `--enable_batching` for `--enable_batching=true`; TensorFlow Serving has both.

    Its help is plain text in groups: a table would cut the longest names short.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "rich_markup_mode": None})

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the flags, a section for each group."""
        for panel in _PANELS:
            flags = [option for option in self.params if getattr(option, "rich_help_panel", None) == panel]
            records = [option.get_help_record(ctx) or ("", "") for option in flags]
            with formatter.section(panel):
                # Typer escapes the bracket of a default for its tables.
                formatter.write_dl([(names, text.replace("\\[", "[")) for names, text in records])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives bare switches their value."""
        switches = {name for option in self.params if option.default in tuple(Switch) for name in option.opts}
        return super().parse_args(ctx, [f"{each}={Switch.true.value}" if each in switches else each for each in args])


def _option(help_text: str, panel: str, name: str, **settings: Any) -> Any:
    return typer.Option(name, help=help_text, rich_help_panel=panel, **settings)


def serve(
    model_base_path: Annotated[
        str, _option("Folder of numbered versions, such as WORKDIR/serving/fcn8.", _MODELS, "--model_base_path")
    ] = "",
    model_name: Annotated[str, _option("Name that requests use for it.", _MODELS, "--model_name")] = "default",
    model_config_file: Annotated[
        str | None,
        _option(
            "Text ModelServerConfig: several models, version policies, labels. Takes the place of the two above.",
            _MODELS,
            "--model_config_file",
            show_default=False,
        ),
    ] = None,
    model_config_file_poll_wait_seconds: Annotated[
        float,
        _option(
            "Read that file again every so many seconds; 0 never.", _MODELS, "--model_config_file_poll_wait_seconds"
        ),
    ] = 0,
    host: Annotated[
        str, _option("Address to listen at; 0.0.0.0 lets other machines in.", _PORTS, "--host")
    ] = "127.0.0.1",
    port: Annotated[int, _option("gRPC port; 0 takes a free one and prints it.", _PORTS, "--port", **_PORT)] = 8500,
    rest_api_port: Annotated[
        int | None,
        _option(
            "REST port; 0 takes a free one. Left out: no REST.", _PORTS, "--rest_api_port", show_default=False, **_PORT
        ),
    ] = None,
    rest_api_timeout_in_ms: Annotated[
        int, _option("Longest REST call, in milliseconds.", _PORTS, "--rest_api_timeout_in_ms")
    ] = 30_000,
    rest_api_num_threads: Annotated[
        int, _option("REST calls that are worked on at once.", _PORTS, "--rest_api_num_threads", min=1)
    ] = 4 * (os.cpu_count() or 1),
    ssl_config_file: Annotated[
        str | None,
        _option(
            "Text SSLConfig: TLS, and client certificates, for gRPC.", _PORTS, "--ssl_config_file", show_default=False
        ),
    ] = None,
    monitoring_config_file: Annotated[
        str | None,
        _option(
            "Text MonitoringConfig: Prometheus metrics, on the REST port.",
            _PORTS,
            "--monitoring_config_file",
            show_default=False,
        ),
    ] = None,
    drain_seconds: Annotated[
        float, _option("After SIGTERM, running requests have this long.", _PORTS, "--drain_seconds")
    ] = 30,
    file_system_poll_wait_seconds: Annotated[
        float,
        _option("Look for new versions every so many seconds; 0 once.", _LOADING, "--file_system_poll_wait_seconds"),
    ] = 1,
    max_num_load_retries: Annotated[
        int, _option("Attempts after a version failed to load.", _LOADING, "--max_num_load_retries")
    ] = 5,
    load_retry_interval_micros: Annotated[
        int, _option("Between attempts, in microseconds.", _LOADING, "--load_retry_interval_micros")
    ] = 60_000_000,
    num_load_threads: Annotated[int, _option("Versions that load at once.", _LOADING, "--num_load_threads")] = 1,
    enable_model_warmup: Annotated[
        Switch,
        _option(
            "Send a version the warm-up requests inside it before it serves.",
            _LOADING,
            "--enable_model_warmup",
        ),
    ] = Switch.true,
    num_request_iterations_for_warmup: Annotated[
        int, _option("How often each of them is sent.", _LOADING, "--num_request_iterations_for_warmup")
    ] = 1,
    allow_version_labels_for_unavailable_models: Annotated[
        Switch,
        _option(
            "Let a new label point to a version that is not loaded yet.",
            _LOADING,
            "--allow_version_labels_for_unavailable_models",
        ),
    ] = Switch.false,
    enable_batching: Annotated[
        Switch,
        _option("Merge requests that wait into one run.", _LIMITS, "--enable_batching"),
    ] = Switch.false,
    batching_parameters_file: Annotated[
        str | None,
        _option(
            "Text BatchingParameters: sizes and delays.", _LIMITS, "--batching_parameters_file", show_default=False
        ),
    ] = None,
    max_concurrent_requests: Annotated[
        int,
        _option("Requests that run at once, without batching.", _LIMITS, "--max_concurrent_requests", min=1),
    ] = os.cpu_count() or 1,
    max_queue: Annotated[
        int, _option("Requests that wait; the next is refused at once.", _LIMITS, "--max_queue", min=0)
    ] = 64,
    max_message_bytes: Annotated[int, _option("Largest request, in bytes.", _LIMITS, "--max_message_bytes", min=1)] = 64
    << 20,
    max_image_pixels: Annotated[
        int, _option("Height times width of the largest image that is decoded.", _LIMITS, "--max_image_pixels", min=1)
    ] = 4096 * 4096,
    max_images_per_request: Annotated[
        int, _option("Most images in one request.", _LIMITS, "--max_images_per_request", min=1)
    ] = 128,
    enable_serialization_as_tensor_content: Annotated[
        Switch,
        _option(
            "Answer with raw bytes in tensor_content.",
            _LIMITS,
            "--enable_serialization_as_tensor_content",
        ),
    ] = Switch.false,
    ui: Annotated[Switch, _option("Also serve a page to look at answers.", _PAGE, "--ui")] = Switch.false,
    ui_port: Annotated[int, _option("Its port; 0 takes a free one.", _PAGE, "--ui_port", **_PORT)] = 8502,
    ui_samples: Annotated[
        str | None, _option("Folder of images that it offers.", _PAGE, "--ui_samples", show_default=False)
    ] = None,
) -> None:
    """Serve exported models over gRPC and REST, with TensorFlow Serving's calls and flags.

    New versions in the folder are loaded, warmed up and swapped in while requests run; a broken one is reported
    and the old one stays. SIGTERM finishes running requests and exits with 0.

    Try: segpipe serve --model_base_path work/serving/fcn8 --model_name fcn8 --rest_api_port 8501 --ui
    """
    given: dict[str, Any] = {
        name: value is Switch.true if isinstance(value, Switch) else value for name, value in locals().items()
    }
    if not given.pop("ui"):
        given["ui_port"] = None
    _check(given)
    with _log_to_stderr():
        from serving.server.main import run
        from serving.server.options import ServeOptions

        run(ServeOptions(**given), lambda line: print(line, flush=True))


def _check(given: dict[str, Any]) -> None:
    """Refuses what cannot work before the wait for TensorFlow; makes the base path absolute. Raises UsageError."""
    if given["batching_parameters_file"] and not given["enable_batching"]:
        raise UsageError("--batching_parameters_file: found it without --enable_batching, expected both or neither")
    if given["monitoring_config_file"] and given["rest_api_port"] is None:
        raise UsageError("--monitoring_config_file: metrics are served on the REST port; add --rest_api_port 8501")
    if given["ui_port"] is not None and given["ssl_config_file"]:
        raise UsageError("--ui: the page asks the server without TLS; leave out --ssl_config_file or --ui")
    if given["ui_port"] is not None:
        from serving.ui.samples import Samples

        Samples(given["ui_samples"])
    base_path = given["model_base_path"]
    if given["model_config_file"]:
        return
    if not base_path:
        raise UsageError(
            "found neither --model_base_path nor --model_config_file, expected one; "
            "a pipeline's models are in WORKDIR/serving/MODEL"
        )
    if "://" in base_path:
        return
    given["model_base_path"] = str(Path(base_path).resolve())
    if not os.path.isdir(base_path):
        found = "a file" if os.path.exists(base_path) else "nothing"
        raise UsageError(f"--model_base_path {base_path}: found {found}, expected a folder of numbered versions")
    if os.path.exists(os.path.join(base_path, "saved_model.pb")):
        raise UsageError(
            f"--model_base_path {base_path}: found one version, expected the folder above it, "
            f"{Path(base_path).resolve().parent}, in which versions are numbered folders"
        )


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Prints what the server notes, a line each, and keeps TensorFlow quiet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("segpipe.serving")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
