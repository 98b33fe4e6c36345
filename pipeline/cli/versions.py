"""`segpipe models`: push an exported model by hand, and copy published versions from an object store."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Annotated

import typer

from components import files
from components.errors import SegpipeError, UsageError
from components.pusher.versions import find_versions
from pipeline.cli.outputs import prepare_folder

app = typer.Typer(help="Push exported models, and copy pushed versions to a server's disk.", no_args_is_help=True)


@app.command()
def push(
    model: Annotated[str, typer.Argument(help="Exported model, or a folder of versions (the newest is taken).")],
    destination: Annotated[
        str, typer.Argument(help="Folder of versions, such as WORKDIR/serving/fcn8 or s3://BUCKET/fcn8.")
    ],
) -> None:
    """Push an exported model as a new version, which readers see whole or not at all."""
    from serving.predictor import find_version

    directory = find_version(model)
    if not files.is_remote(destination):
        prepare_folder("DESTINATION", destination)
    from components.pusher.push import push as push_model

    pushed, _ = push_model(directory, destination)
    _print(f"pushed {directory} to {pushed}")


@app.command()
def sync(
    source: Annotated[str, typer.Argument(help="Where versions are pushed, such as s3://BUCKET/fcn8.")],
    destination: Annotated[str, typer.Argument(help="Local folder that TensorFlow Serving reads.")],
    every: Annotated[
        float | None, typer.Option(help="Repeat after this many seconds, until SIGTERM.", min=0.1, show_default="once")
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove versions that are no longer published, except the newest.")
    ] = False,
) -> None:
    """Copy published versions from an object store to a local folder, each checked and then shown by one rename.

    Once, it exits with 0 if the folder then holds a version, else with 1.
    With --every, it reports a store that fails and tries again; SIGTERM ends it with 0.
    """
    if files.is_remote(destination):
        raise UsageError(f"DESTINATION: found {destination}, expected a local folder, which TensorFlow Serving reads")
    prepare_folder("DESTINATION", destination)
    # Without a handler, the first process of a container would ignore SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _sync(source, destination, remove)
    while every is not None:
        time.sleep(every)
        _sync(source, destination, remove)
    if not find_versions(destination):
        raise SegpipeError(
            f"{source}: found no published version that could be copied, expected at least one. "
            "Push one with `segpipe run --set serving_dir=...` or `segpipe models push`"
        )


def _sync(source: str, destination: str, remove: bool) -> None:
    """Copies what is new and prints what was done."""
    from components.pusher.sync import sync as copy_published

    result = copy_published(source, destination, remove)
    for number in result.copied:
        _print(f"copied version {number} to {os.path.join(destination, str(number))}")
    for number in result.removed:
        _print(f"removed version {number}, which is no longer published")
    for error in result.errors:
        _print(error, stderr=True)


def _print(text: str, stderr: bool = False) -> None:
    print(text, file=sys.stderr if stderr else sys.stdout, flush=True)
