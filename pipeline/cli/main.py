"""The command line `segpipe`: its commands, and the exit codes of its errors."""

from __future__ import annotations

import inspect
import sys
from typing import NoReturn

import typer
from rich.text import Text

from components.errors import EXIT_INTERRUPTED, SegpipeError
from components.older_stack import hide_google_warnings
from pipeline.cli import (
    compare,
    data,
    doctor,
    gc,
    kubeflow,
    models,
    predict,
    release,
    run,
    runs,
    serve,
    versions,
    watch,
)
from pipeline.cli.extras import missing_extra
from pipeline.cli.printing import say

app = typer.Typer(
    name="segpipe",
    help="Train, evaluate, gate and serve semantic segmentation models from a folder of images and masks.",
    epilog="Start with: segpipe data make data/synthetic, then: segpipe run --data data/synthetic --preset smoke",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(release.app, name="release")
app.add_typer(versions.app, name="models")
app.command("run")(run.run)
app.command("config")(run.show_config)
app.command("evaluate")(models.evaluate)
app.command("predict")(predict.predict)
app.command("serve", cls=serve.FlagsWithValues)(serve.serve)
app.command("runs")(runs.list_runs)
app.command("show")(runs.show)
app.command("gc")(gc.gc)
app.command("compare")(compare.compare)
app.add_typer(kubeflow.app, name="kubeflow")
app.command("watch")(watch.watch)
app.command("doctor")(doctor.doctor)


def _unwrap_help(group: typer.Typer) -> None:
    """Joins the lines of each paragraph of the commands' docstrings; Typer keeps their line breaks."""
    for command in group.registered_commands:
        paragraphs = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs.split("\n\n"))
    for child in group.registered_groups:
        if child.typer_instance:
            _unwrap_help(child.typer_instance)


_unwrap_help(app)


def main() -> None:
    """Runs the command line. Prints a SegpipeError without a traceback."""
    hide_google_warnings()
    try:
        app()
    except SegpipeError as error:
        _explain(error)
    except ModuleNotFoundError as error:
        missing = missing_extra(error.name)
        if missing is None:
            raise
        _explain(missing)
    except SystemExit as ended:
        if ended.code == EXIT_INTERRUPTED:
            _print_error("stopped; run the same command again to continue")
        raise


def _explain(error: SegpipeError) -> NoReturn:
    _print_error(str(error))
    sys.exit(error.exit_code)


def _print_error(message: str) -> None:
    say(Text.assemble(("segpipe:", "bold red"), " ", message), stderr=True)


if __name__ == "__main__":
    main()
