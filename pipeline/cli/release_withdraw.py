"""`segpipe release withdraw`: take a version that is not served out of use, or back into it."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING, Annotated

import typer

from components import files
from components.errors import ReleaseError, UsageError
from pipeline.cli.lookup import ServedOptions, check_known
from pipeline.cli.options import with_options
from pipeline.cli.printing import say

if TYPE_CHECKING:
    from pipeline.history.served import ServedModels


@with_options
def withdraw(
    version: Annotated[int, typer.Argument(help="The version's number.")],
    served: ServedOptions,
    why: Annotated[str, typer.Option(help="Record why the version is withdrawn.", show_default=False)] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take the version out of the record again.")] = False,
    versions: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Directory of the model's versions, local or on an object store.",
            show_default="the one below work/serving that has the version",
        ),
    ] = "",
) -> None:
    """Withdraw a version: it is no longer a baseline or a warm start, and is not pushed again.

    Its files stay. A version that is stable, on trial or loaded is refused. Labels are read from the servers or their
    configuration; without these options, from the record of releases beside the versions.
    """
    from components.pusher import withdrawn
    from components.stored_folder import explained

    if bool(why) == undo:
        raise UsageError("withdraw: expected either --why TEXT or --undo")
    base = versions.rstrip("/") or _find_versions(version)
    with explained(base):
        if not files.list_names(base):
            raise UsageError(f"--versions {base}: found nothing there, expected a model's versions. Check the path")
    if undo:
        withdrawn.restore(base, version)
        say(f"version {version} of {base} is no longer withdrawn")
        return
    directory, models = files.join(base, str(version)), served.read()
    _refuse_served(models, directory, served.given)
    withdrawn.withdraw(base, version, why)
    say(f"version {version} of {base} is withdrawn")
    states = [state.state for state in models.states(directory)]
    if "removed" in states:
        say("Note: it is not in that directory. If the number is wrong, run the same command with --undo")
    if "latest" in states:
        say("Note: it is the newest version, which servers without labels serve. Promote or push another version")


def _find_versions(version: int) -> str:
    """Returns the directory below work/serving that holds a version. Raises UsageError if none or several do."""
    found = [os.path.dirname(path) for path in glob.glob(f"work/serving/*/{version}")]
    if len(found) != 1:
        places = " and ".join(found) or f"no directory work/serving/*/{version}"
        raise UsageError(
            f"withdraw {version}: found {places}, expected one. Name the directory of the model's versions: "
            "--versions DIR. `segpipe runs` lists the versions"
        )
    return found[0]


def _refuse_served(models: ServedModels, directory: str, from_servers: bool) -> None:
    """Raises ReleaseError if a version is served.

    Args:
        models: how versions are served.
        directory: the version's directory.
        from_servers: whether the servers or their configuration were read; without them, the newest version may be
            served or not.
    """
    if from_servers:
        check_known(models, [directory])
    kinds = ("stable", "canary", "loaded", *(["latest"] if from_servers else []))
    found = [state.state for state in models.states(directory) if state.state in kinds]
    name = f"withdraw {os.path.basename(directory)}"
    if found == ["canary"]:
        raise ReleaseError(
            f"{name}: found that it is the canary. Remove the label first: segpipe release canary --withdraw"
        )
    if found:
        raise ReleaseError(
            f"{name}: found it served ({', '.join(found)}), expected another version in its place. "
            "Roll back, which withdraws it too: segpipe release rollback. Or make another stable first: "
            "segpipe release canary VERSION, then segpipe release promote"
        )
