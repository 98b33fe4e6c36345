"""Plans what `segpipe gc` removes; nothing here removes anything.

A run is kept, with every artifact that it read or wrote (including cached ones), if it

- is among the newest runs of its project, or younger than the given age,
- is running,
- finished last,
- pushed a version that is kept: one of the newest of its model, or one that a server's configuration or a label names,
- made one of the newest blessed models of its project and classes, from which the next run takes its baseline,
- used another root on the same metadata store.

Artifacts that no kept run used are removed. If several runs took the same version or model from the cache, only the
newest is kept for it.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import os
import posixpath
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

from components import files
from components.pusher.moves import newest_moves
from components.pusher.versions import find_versions, version_number
from components.pusher.withdrawn import read_withdrawn
from pipeline.configuration.config import RunConfig
from pipeline.retention.served import named_versions
from pipeline.storage.store import ATTEMPT, Artifact, Run, Store, attempt_name
from pipeline.storage.workdir import Workdir
from trainer.checkpoints import execution_of

Kind = Literal["artifacts", "checkpoints", "versions", "runs"]
KINDS: tuple[Kind, ...] = ("artifacts", "checkpoints", "versions", "runs")
# Seconds after its last node during which a run on a cluster may still write.
_FINISHING = 3600
# Property of an execution: the name of its stateful working directory (TFX's outputs_utils.py).
_WORKING_FOLDER = "__stateful_working_dir_index__"


@dataclasses.dataclass(frozen=True)
class Item:
    """A file or folder to remove, and its size."""

    kind: Kind
    path: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to remove.

    Attributes:
        items: files and folders to remove, in order.
        deleted: ids of the artifacts to mark as deleted.
        removed: names of the runs to mark as removed, by id of their context.
        kept: why each kept run is kept, by name.
    """

    items: tuple[Item, ...]
    deleted: frozenset[int]
    removed: Mapping[int, str]
    kept: Mapping[str, str]

    def within(self, later: Plan) -> Plan:
        """Returns the part of this plan that a later plan contains too."""
        paths = {item.path for item in later.items}
        return Plan(
            tuple(item for item in self.items if item.path in paths),
            self.deleted & later.deleted,
            {key: name for key, name in self.removed.items() if key in later.removed},
            later.kept,
        )


def make_plan(workdir: Workdir, config: RunConfig, now: float | None = None) -> Plan:
    """Plans what to remove from a work directory or a shared root at a time, in seconds since 1970.

    It uses the settings of `retention`, the `best_of` of `gate`, and the timeouts of `kubeflow`.

    Raises:
        SegpipeError: the metadata store, a folder or a server's configuration cannot be read.
    """
    return _Planner(workdir, config, time.time() if now is None else now).plan()


class _Planner:
    def __init__(self, workdir: Workdir, config: RunConfig, now: float) -> None:
        self._workdir, self._settings = workdir, config.retention
        # The gate chooses its baseline among `best_of` models.
        self._keep_models = max(config.retention.keep_versions, config.gate.best_of)
        store = Store(workdir.connection)
        self._runs = sorted(store.runs(), key=lambda run: (run.started, run.context_id))
        self._artifacts = {i: artifact for run in self._runs for i, artifact in (run.inputs | run.outputs).items()}
        self._own = [run for run in self._runs if self._is_own(run)]
        # Directories of all versions whose artifact is below the root.
        pushed = [each for each in store.artifacts("PushedModel") if _below(each.uri, workdir.root)]
        self._pushed = {each.pushed for each in pushed if each.pushed}
        bases = sorted({posixpath.dirname(destination) for destination in self._pushed})
        self._versions = {base: find_versions(base) for base in bases}
        self._withdrawn = {base: set(read_withdrawn(base)) for base in bases}
        self._youngest = now - _seconds(self._settings.older_than)
        cluster = config.kubeflow
        longest = max(cluster.timeout, *(each.timeout or 0 for each in cluster.components.values()), 0)
        self._silent = now - max(_seconds(self._settings.stopped_after), longest)
        self._finishing = now - _FINISHING
        self._checkpoints = self._find_checkpoints()

    def plan(self) -> Plan:
        """Returns what no kept run needs."""
        kept = self._kept()
        removed = [run for run in self._own if run.name not in kept]
        gone = {run.name for run in removed}
        needed = {i for run in self._runs if run.name not in gone for i in run.inputs | run.outputs}
        unneeded = {i for run in removed for i in run.inputs | run.outputs} - needed
        uris = {self._artifacts[i].uri for i in needed}
        # The artifact of a single value is a file in the folder of its execution.
        used = uris | {posixpath.dirname(uri) for uri in uris}
        root = self._workdir.artifacts
        unneeded = {i for i in unneeded if _below(self._artifacts[i].uri, root) and self._artifacts[i].uri not in used}
        items = [
            *self._artifact_items(unneeded, removed, used),
            *self._checkpoint_items(gone),
            *self._version_items(gone),
            *self._run_items(gone, kept),
        ]
        return Plan(tuple(items), frozenset(unneeded), {run.context_id: run.name for run in removed}, kept)

    def _is_own(self, run: Run) -> bool:
        """Tells whether a run wrote only below this root. On a shared root, a run without outputs has a folder here."""
        if run.outputs or not self._workdir.shared:
            return all(_below(artifact.uri, self._workdir.root) for artifact in run.outputs.values())
        return files.usage(self._workdir.run(run.name)).files > 0

    def _kept(self) -> dict[str, str]:
        """Returns why each kept run is kept, by name."""
        own, kept = self._own, dict[str, str]()
        for run in own:
            if self._may_be_running(run):
                kept.setdefault(run.name, "running")
            if max(run.active, run.started) > self._youngest:
                kept.setdefault(run.name, f"younger than {self._settings.older_than}")
        for runs in self._newest_runs():
            for run in runs:
                kept.setdefault(run.name, f"among the newest {self._settings.keep_runs}")
        finished = [run for run in own if _has_finished(run)]
        if finished:
            kept.setdefault(finished[-1].name, "finished last")
        if os.path.islink(self._workdir.latest):
            kept.setdefault(os.path.basename(os.path.realpath(self._workdir.latest)), "finished last")
        served = {self._versions[base][number] for base in self._versions for number in self._wanted(base)}
        for run in reversed(own):
            for destination in self._destinations(run) & served:
                kept.setdefault(run.name, f"pushed {destination}, which is kept")
                served.discard(destination)
        self._keep_blessed(kept)
        return kept

    def _newest_runs(self) -> Iterator[list[Run]]:
        """Yields the newest runs of each project, oldest first."""
        for project in sorted({run.project for run in self._own}):
            yield [run for run in self._own if run.project == project][-self._settings.keep_runs :]

    def _keep_blessed(self, kept: dict[str, str]) -> None:
        """Adds the runs of the newest blessed models of each project and classes."""
        blessed: dict[tuple[str, str], set[int]] = {}
        for run in reversed(self._own):
            known = blessed.setdefault((run.project, _classes(run)), set())
            given = {i for i, artifact in run.outputs.items() if _is_blessed(artifact)} - known
            if given and len(known) < self._keep_models and not self._is_withdrawn(run):
                known |= given
                kept.setdefault(run.name, f"among the newest {self._keep_models} blessed models")

    def _may_be_running(self, run: Run) -> bool:
        """Tells whether a run on a cluster may still write. A local run holds the lock of its work directory."""
        if not self._workdir.shared:
            return False
        training = {each.id for each in run.executions if each.node_id == "Trainer"}
        changes = [usage.changed for usage, execution in self._checkpoints.values() if execution in training]
        return max([run.active, *changes]) > (self._finishing if _has_finished(run) else self._silent)

    def _is_withdrawn(self, run: Run) -> bool:
        return any(
            version_number(destination) in self._withdrawn.get(posixpath.dirname(destination), ())
            for destination in self._destinations(run)
        )

    def _destinations(self, run: Run) -> set[str]:
        """Returns the directories of the versions that a run pushed, itself or from the cache."""
        return {artifact.pushed for artifact in run.outputs.values() if artifact.pushed}

    def _wanted(self, base: str) -> set[int]:
        """Returns the versions in a directory that are newest, labelled or named by a server's configuration."""
        existing = self._versions[base]
        labelled = {move.version for move in newest_moves(base).values() if move.version}
        named = named_versions(self._settings.served_by, base, existing) | labelled
        return (named | set(heapq.nlargest(self._settings.keep_versions, existing))) & set(existing)

    def _artifact_items(self, ids: Collection[int], removed: Sequence[Run], used: Collection[str]) -> Iterator[Item]:
        """Yields the artifacts, and other folders of the removed executions."""
        paths = {self._artifacts[i].uri for i in ids}
        for path in sorted(paths | self._leftovers(removed, used)):
            usage = files.usage(path)
            if usage.files or os.path.isdir(path):
                yield Item("artifacts", path, usage.bytes)

    def _leftovers(self, removed: Sequence[Run], used: Collection[str]) -> set[str]:
        """Returns the folders of executions of removed runs. ML Metadata has no artifacts of failed ones.

        TFX's folders are NODE/OUTPUT/EXECUTION and NODE/.system/KIND/EXECUTION
        (tfx/orchestration/portable/outputs_utils.py, 1.16 and 1.21).
        """
        names: dict[str, set[str]] = {}
        for run in removed:
            for execution in run.executions:
                attempts = range(1, int(execution.properties.get(ATTEMPT, 1)) + 1)
                own = {attempt_name(execution.id, attempt) for attempt in attempts}
                own.add(str(execution.properties.get(_WORKING_FOLDER, execution.id)))
                names.setdefault(execution.node_id, set()).update(own)
        found = set()
        for node, folder in self._node_folders(set(names)):
            for output in files.list_folders(folder):
                path = files.join(folder, output)
                kinds = [files.join(path, kind) for kind in files.list_folders(path)] if output == ".system" else []
                for parent in kinds or [path]:
                    found |= {files.join(parent, name) for name in files.list_folders(parent) if name in names[node]}
        return found - set(used)

    def _node_folders(self, nodes: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yields nodes with their folders, in the folder of artifacts or of a project in it."""
        root = self._workdir.artifacts
        for name in files.list_folders(root) if nodes else []:
            if name in nodes:
                yield name, files.join(root, name)
            elif name in {run.project for run in self._runs}:
                folder = files.join(root, name)
                yield from ((node, files.join(folder, node)) for node in files.list_folders(folder) if node in nodes)

    def _find_checkpoints(self) -> dict[str, tuple[files.Usage, int | None]]:
        """Returns the disk usage of each attempt's checkpoints, and the execution that wrote them, by path.

        The usage includes the files of trainer/attempts.py next to the folder, one of which changes while the attempt
        runs.
        """
        root = self._workdir.checkpoints
        parts: dict[str, list[files.Usage]] = {}
        for name in files.list_names(root):
            parts.setdefault(name.partition(".")[0], []).append(files.usage(files.join(root, name)))
        found: dict[str, tuple[files.Usage, int | None]] = {}
        for name, usages in parts.items():
            execution = execution_of(files.join(root, name))
            total = files.Usage(
                sum(each.files for each in usages),
                sum(each.bytes for each in usages),
                max(each.changed for each in usages),
            )
            found[files.join(root, name)] = total, int(execution) if execution.isdigit() else None
        return found

    def _bound(self) -> float:
        """Returns the age limit of files without metadata: older than all newest runs of projects with enough runs."""
        full = [runs[0].started for runs in self._newest_runs() if len(runs) == self._settings.keep_runs]
        return min([self._youngest, *full]) if full else 0.0

    def _checkpoint_items(self, gone: Collection[str]) -> Iterator[Item]:
        """Yields the checkpoints of trainings that have ended, or whose run is removed.

        A later run with the same settings continues from the checkpoints of a stopped run. On a cluster, where each
        attempt has its own checkpoints, they are only kept while the run may be running.
        """
        runs = {each.id: (run, each) for run in self._runs for each in run.executions}
        for path, (usage, execution) in sorted(self._checkpoints.items()):
            if execution in runs:
                run, training = runs[execution]
                stopped = self._workdir.shared and not self._may_be_running(run)
                ended = training.finished or run.name in gone or stopped
            else:
                # From a removed run, or from a version of segpipe that did not record the execution.
                ended = usage.changed < (self._silent if self._workdir.shared else self._bound())
            if ended and usage.changed <= self._youngest:
                yield Item("checkpoints", path, usage.bytes)

    def _version_items(self, gone: Collection[str]) -> Iterator[Item]:
        """Yields unneeded versions that this root's runs pushed. Versions pushed by hand stay."""
        needed = {path for run in self._runs if run.name not in gone for path in self._destinations(run)}
        for base, versions in self._versions.items():
            wanted = self._wanted(base)
            for number, directory in sorted(versions.items()):
                if directory in self._pushed - needed and number not in wanted:
                    yield Item("versions", directory, files.usage(directory).bytes)

    def _run_items(self, gone: Collection[str], kept: Mapping[str, str]) -> Iterator[Item]:
        """Yields the folders of removed runs, and old ones without metadata, of runs that failed early."""
        known = {*kept, *(run.name for run in self._runs)}
        bound = self._bound()
        for name in files.list_folders(self._workdir.runs):
            path = self._workdir.run(name)
            usage = files.usage(path)
            if name in gone or (name not in known and usage.changed < bound):
                yield Item("runs", path, usage.bytes)


def _seconds(age: str) -> float:
    """Reads an age of the settings, such as `12h` or `30d`."""
    return int(age[:-1]) * {"h": 3600, "d": 86400}[age[-1]]


def _below(path: str, root: str) -> bool:
    """Tells whether a path is below a folder."""
    return path.startswith(files.join(root, ""))


def _has_finished(run: Run) -> bool:
    """Tells whether the last node of a run succeeded."""
    return any(execution.node_id == "Report" and execution.finished for execution in run.executions)


def _is_blessed(artifact: Artifact) -> bool:
    """Tells whether an artifact blesses a model."""
    return artifact.type == "ModelBlessing" and artifact.properties.get("blessed") == 1


def _classes(run: Run) -> str:
    """Returns the class map of a run's Trainer, as text; empty without a Trainer."""
    trainer = next((execution for execution in run.executions if execution.node_id == "Trainer"), None)
    custom_config = trainer.properties.get("custom_config") if trainer else None
    return str((json.loads(custom_config or "null") or {}).get("class_map", ""))
