"""The command `segpipe`: its commands, and how a mistake becomes a message and an exit code."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer
from rich.console import Console
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


def main() -> None:
    """Runs the command line; a mistake that segpipe can explain is printed without a traceback."""
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
            Console(stderr=True).print("[bold red]segpipe:[/] stopped; run the same command again to go on from here")
        raise


def _explain(error: SegpipeError) -> NoReturn:
    message = Text.assemble(("segpipe:", "bold red"), " ", str(error))
    Console(stderr=True, highlight=False, soft_wrap=True).print(message)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
