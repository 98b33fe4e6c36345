"""Removes the items of a plan, in an order that is safe if the process is killed.

Artifacts are marked as deleted before their files are removed, so that no run takes them from the cache. Runs are
marked as removed after their files. A second `segpipe gc` completes an interrupted one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import posixpath
import time

from components import files, stored_folder
from components.pusher.published import unpublish
from components.pusher.versions import find_versions, remove_version, version_number
from pipeline.configuration.config import RunConfig
from pipeline.retention.plan import Item, Plan, make_plan
from pipeline.retention.records import Records
from pipeline.retention.served import named_versions
from pipeline.storage.workdir import Workdir
from trainer.attempts import Attempt

# Longer than TFX takes from finding cached outputs to recording that it uses them.
SETTLE_SECONDS = 60


def collect(workdir: Workdir, config: RunConfig, settle: float = SETTLE_SECONDS) -> Plan:
    """Removes what no kept run needs, and returns it. The caller holds the lock of a local work directory.

    On a shared root, other runs may start at the same time. So the artifacts are marked first. After a pause (`settle`,
    in seconds), a second plan is made, and artifacts that a run took from the cache during the pause are kept.

    Raises:
        SegpipeError: a store or a folder cannot be read or written.
    """
    plan = make_plan(workdir, config)
    records = Records(workdir.connection)
    records.set_deleted(plan.deleted)
    if workdir.shared and plan.items:
        time.sleep(settle)
        marked, plan = plan.deleted, plan.within(make_plan(workdir, config))
        records.set_deleted(marked - plan.deleted, deleted=False)
    done = [item for item in plan.items if _remove(item, config)]
    records.set_removed(plan.removed)
    return dataclasses.replace(plan, items=tuple(done))


def _remove(item: Item, config: RunConfig) -> bool:
    """Removes a file or folder. Returns False for a version that was released in the meantime, which stays."""
    # The file is missing if another `segpipe gc` removed it.
    with stored_folder.explained(item.path), contextlib.suppress(FileNotFoundError):
        if item.kind == "versions":
            return _remove_version(item.path, config)
        if item.kind == "checkpoints":
            Attempt(posixpath.dirname(item.path), posixpath.basename(item.path)).remove()
        elif item.kind == "artifacts" and files.is_remote(item.path):
            stored_folder.remove(item.path)
        elif files.is_remote(item.path) or os.path.isdir(item.path):
            files.remove_folder(item.path)
        else:
            files.remove(item.path)  # an artifact of a single value
    return True


def _remove_version(directory: str, config: RunConfig) -> bool:
    base, number = posixpath.dirname(directory), version_number(directory)
    assert number is not None, directory

    def is_wanted() -> bool:
        return number in named_versions(config.retention.served_by, base, {number, *find_versions(base)})

    removed = unpublish(directory, is_wanted) if files.is_remote(base) else remove_version(base, number, is_wanted)
    if not removed:
        logging.getLogger(__name__).warning("%s: kept, because it was released in the meantime", directory)
    return removed
