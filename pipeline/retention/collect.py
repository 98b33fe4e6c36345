"""Removes what a plan names, in an order in which a kill at any moment leaves nothing half.

Artifacts are marked as deleted before their files go, so no run takes them from the cache; runs are marked as removed
after their files are gone. So a second `segpipe gc` finishes what a killed one began.
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

# TFX looks up cached outputs, checks that their folders exist, and then records that it took them: seconds.
SETTLE_SECONDS = 60


def collect(workdir: Workdir, config: RunConfig, settle: float = SETTLE_SECONDS) -> Plan:
    """Removes what no kept run needs. The caller holds the lock of a local work directory.

    On a shared root runs may start meanwhile. So what is to be removed is marked first; after a pause, the plan is made
    anew, and what a run has taken from the cache meanwhile is marked as live again and kept.

    Args:
        workdir: the folder and its metadata store.
        config: settings; see `make_plan`.
        settle: seconds of that pause.

    Returns:
        What was removed.

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
    """Removes a file or folder. Returns whether it did: a version that was released meanwhile stays."""
    with stored_folder.explained(item.path), contextlib.suppress(FileNotFoundError):  # another `segpipe gc` was first
        if item.kind == "versions":
            return _remove_version(item.path, config)
        if item.kind == "checkpoints":
            Attempt(posixpath.dirname(item.path), posixpath.basename(item.path)).remove()
        elif item.kind == "artifacts" and files.is_remote(item.path):
            stored_folder.withdraw(item.path)
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
        logging.getLogger(__name__).warning("%s: kept, because it was released meanwhile", directory)
    return removed
