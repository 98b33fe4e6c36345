"""`segpipe serve`: serve models with the flags of TensorFlow Serving's `tensorflow_model_server`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import enum
import importlib.metadata
import inspect
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from components import files
from components.errors import UsageError
from components.pusher.versions import find_versions
from components.tensorflow_start import prepare
from serving.engine import Engine, choose
from serving.server.options import IGNORED_FLAGS, MODELS, PANELS, ServeOptions

_FIELDS = dataclasses.fields(ServeOptions)
_OWN = frozenset(field.name for field in _FIELDS if field.metadata["own"])
_PATHS = ("_file", "_socket_path")
_IGNORED = "segpipe.ignored_flags"


class Switch(str, enum.Enum):
    """The values of a switch."""

    true = "true"
    false = "false"


class FlagsWithValues(TyperCommand):
    """Reads `--enable_batching` as `--enable_batching=true`, and collects flags that have no effect here.

    Its help is plain text in groups, because a table would truncate the longest names.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "rich_markup_mode": None})

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the flags in groups."""
        for panel in PANELS:
            flags = [option for option in self.params if getattr(option, "rich_help_panel", None) == panel]
            records = [option.get_help_record(ctx) or ("", "") for option in flags]
            with formatter.section(panel):
                # Typer escapes the bracket of a default for its tables.
                formatter.write_dl([(names, text.replace("\\[", "[")) for names, text in records])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Adds the value of bare switches and removes ignored flags. Raises UsageError for an unknown flag."""
        options = {name: option for option in self.params for name in option.opts}
        ctx.meta[_IGNORED], args = _take_ignored(args)
        for index, argument in enumerate(args):
            name = argument.partition("=")[0]
            if argument == "--version":
                print(f"segpipe serve, TensorFlow {importlib.metadata.version('tensorflow')}")
                ctx.exit()
            if argument.startswith("--") and name not in options and argument != "--help":
                raise _unknown_flag(name, ["--version", *options, *(f"--{each}" for each in IGNORED_FLAGS)])
            if argument in options and options[argument].default in tuple(Switch):
                args[index] = f"{argument}={Switch.true.value}"
        return super().parse_args(ctx, args)


def _take_ignored(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the ignored flags with their values, and the other arguments. The value of a bare switch is "true"."""
    ignored: dict[str, str] = {}
    others: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in IGNORED_FLAGS:
            others.append(argument)
        elif equals:
            ignored[name] = value
        else:
            ignored[name] = left.pop(0) if left and not left[0].startswith("--") else Switch.true.value
    return ignored, others


def _unknown_flag(name: str, known: list[str]) -> UsageError:
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]}?" if near else "segpipe serve --help lists them"
    return UsageError(f"{name}: found an unknown flag, expected one of segpipe serve or TensorFlow Serving; {meant}")


def serve(context: typer.Context, engine: Engine, **values: Any) -> None:
    """Serve exported models over gRPC and REST, with the API and flags of TensorFlow Serving.

    New versions in the folder are loaded, warmed up and swapped in while requests run. A broken version is reported,
    and the old one stays. SIGTERM finishes running requests and exits with 0.

    Try: segpipe serve --model_base_path work/serving/segpipe --model_name segpipe --rest_api_port 8501 --ui
    """
    for name, value in values.items():
        if isinstance(value, Switch):
            values[name] = value is Switch.true
        elif value and name.endswith(_PATHS):
            values[name] = os.path.abspath(value)
    _check(values)
    ignored: dict[str, str] = context.meta[_IGNORED]
    given = {name: value for name, value in values.items() if _is_given(context, name)}
    paths = {name: os.path.abspath(value) for name, value in ignored.items() if name.endswith(_PATHS)}
    command, why = choose(engine, {**given, **ignored, **paths}, _OWN)
    print(f"engine  {why}", flush=True)
    if command is not None:
        os.execvp(command[0], command)
    if ignored.get("use_alts_credentials", "false").lower() != "false":
        raise UsageError("--use_alts_credentials: the local server has no ALTS; use --ssl_config_file for TLS")
    if ignored:
        print(f"ignored  {', '.join(f'--{name}' for name in ignored)}: no effect on the local server", flush=True)
    from serving.server.configuration import check_flags

    options = ServeOptions(**values)
    check_flags(options)  # before the wait for TensorFlow
    with _log_to_stderr():
        from serving.server.main import run

        run(options, lambda line: print(line, flush=True))


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _parameter(field: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    """Returns the parameter of a flag, as Typer expects it."""
    default: Any = field.default
    if kind is bool:
        kind, default = Switch, Switch.true if default else Switch.false
    option = typer.Option(f"--{field.name}", show_default=default not in (None, ""), **field.metadata["option"])
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


_ENGINE = typer.Option(
    "--engine",
    envvar="SEGPIPE_ENGINE",
    help="Server to start: auto takes TensorFlow Serving if it is installed and has all given flags, otherwise local.",
    rich_help_panel=MODELS,
)
_HINTS = get_type_hints(ServeOptions)
serve.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        inspect.Parameter(
            "engine", inspect.Parameter.KEYWORD_ONLY, default=Engine.auto, annotation=Annotated[Engine, _ENGINE]
        ),
        *(_parameter(field, _HINTS[field.name]) for field in _FIELDS),
    ]
)


def _check(given: dict[str, Any]) -> None:
    """Checks the flags before TensorFlow is loaded, and makes the base path absolute. Raises UsageError."""
    if given["batching_parameters_file"] and not given["enable_batching"]:
        raise UsageError("--batching_parameters_file: found it without --enable_batching, expected both or neither")
    if given["monitoring_config_file"] and given["rest_api_port"] is None:
        raise UsageError("--monitoring_config_file: metrics are served on the REST port; add --rest_api_port 8501")
    if given["ui"] and given["ssl_config_file"]:
        raise UsageError("--ui: the page asks the server without TLS; leave out --ssl_config_file or --ui")
    if given["ui"]:
        from serving.ui.app import Samples

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
    files.refuse_pattern("--model_base_path", base_path)
    given["model_base_path"] = os.path.abspath(base_path)
    if not os.path.isdir(base_path):
        found = "a file" if os.path.exists(base_path) else "nothing"
        raise UsageError(f"--model_base_path {base_path}: found {found}, expected a folder of numbered versions")
    if os.path.exists(os.path.join(base_path, "saved_model.pb")):
        raise UsageError(
            f"--model_base_path {base_path}: found one version, expected the folder above it, "
            f"{Path(base_path).resolve().parent}, in which versions are numbered folders"
        )
    if find_versions(base_path):
        return
    # The server may wait for a first version, so a folder without any is no error. Volumes have a private lost+found.
    folders = [entry.path for entry in os.scandir(base_path) if entry.is_dir() and os.access(entry.path, os.R_OK)]
    models = sorted(folder for folder in folders if find_versions(folder))
    if models:
        raise UsageError(
            f"--model_base_path {base_path}: found no numbered version, expected a folder of versions, such as "
            f"{models[0]}"
        )


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Logs the server's messages to standard error, and hides TensorFlow's below errors."""
    prepare(quiet=True)
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
