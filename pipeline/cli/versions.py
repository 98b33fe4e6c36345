"""`segpipe models`: push an exported model, and copy pushed versions from an object store."""

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
from pipeline.cli.printing import say

app = typer.Typer(help="Push exported models, and copy pushed versions to a server's disk.", no_args_is_help=True)


@app.command()
def push(
    model: Annotated[str, typer.Argument(help="Exported model, or a folder of versions (the newest is taken).")],
    destination: Annotated[
        str, typer.Argument(help="Folder of versions, such as WORKDIR/serving/segpipe or s3://BUCKET/segpipe.")
    ],
) -> None:
    """Push an exported model as a new version, in one step that readers cannot see half done."""
    from serving.predictor import find_version

    directory = find_version(model)
    if not files.is_remote(destination):
        prepare_folder("DESTINATION", destination)
    from components.pusher.push import push as push_model

    pushed, _ = push_model(directory, destination)
    say(f"pushed {directory} to {pushed}")


@app.command()
def sync(
    source: Annotated[str, typer.Argument(help="Folder that versions are pushed to, such as s3://BUCKET/fcn8.")],
    destination: Annotated[str, typer.Argument(help="Local folder that TensorFlow Serving reads.")],
    every: Annotated[
        float | None,
        typer.Option(help="Seconds to wait before it copies again, until SIGTERM.", min=0.1, show_default="copy once"),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove versions that are no longer published, except the newest.")
    ] = False,
) -> None:
    """Copy pushed versions from an object store to a local folder; each appears there checked and complete.

    Exit codes: 0 the folder holds a version; 1 it holds none. With --every, it reports errors of the store and tries
    again, until SIGTERM ends it with 0.
    """
    if files.is_remote(destination):
        raise UsageError(f"DESTINATION: found {destination}, expected a local folder")
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
    """Copies new versions and prints what it did."""
    from components.pusher.sync import sync as copy_published

    result = copy_published(source, destination, remove)
    for number in result.copied:
        say(f"copied version {number} to {os.path.join(destination, str(number))}")
    for number in result.removed:
        say(f"removed version {number}, which is no longer published")
    for error in result.errors:
        say(error, stderr=True)
