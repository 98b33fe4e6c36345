"""Reads the runs in ML Metadata for the plan of `segpipe gc`, and marks what was removed.

The rows stay, because ML Metadata's service cannot delete (the methods in
ml_metadata/proto/metadata_store_service.proto, 1.16 and 1.21, put and get). A removed artifact is marked DELETED: TFX
takes only LIVE ones from the cache (tfx/orchestration/portable/cache_utils.py, `_get_outputs_of_execution`) and as
inputs (input_resolution/channel_resolver.py), in both versions. A removed run is marked by a property of its context.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ml_metadata.proto import metadata_store_pb2

from components import files
from pipeline.storage.store import REMOVED, connect

_Execution = metadata_store_pb2.Execution
_DONE = (_Execution.COMPLETE, _Execution.CACHED)
_OUTPUT = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
_LAST_NODE = "Report"
_BATCH = 500  # ids per query
# Property of an execution: the name of its stateful working directory (TFX's outputs_utils.py).
_WORKING_FOLDER = "__stateful_working_dir_index__"


@dataclasses.dataclass(frozen=True)
class Execution:
    """A node's execution: whether it succeeded, and the possible names of its folders below the node's."""

    id: int
    node: str
    done: bool
    folders: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Run:
    """The properties of a run that decide whether it is kept.

    Attributes:
        context_id: ML Metadata's id of the run's context.
        name: name of the run and of its folder.
        project: name of its pipeline.
        started: start, in seconds since 1970.
        active: last change of its metadata, in seconds since 1970.
        finished: whether its last node succeeded.
        executions: the executions of its nodes.
        inputs: ids of the artifacts that it read.
        outputs: ids of the artifacts that it wrote or took from the cache.
        classes: the class map of its Trainer, as text; empty without a Trainer.
    """

    context_id: int
    name: str
    project: str
    started: float
    active: float
    finished: bool
    executions: tuple[Execution, ...]
    inputs: frozenset[int]
    outputs: frozenset[int]
    classes: str


class Records:
    """The runs and artifacts in ML Metadata, in the form that the plan needs."""

    def __init__(self, connection: Any) -> None:
        """Opens a store. Raises SegpipeError if it cannot be reached."""
        self._store = connect(connection)

    def runs(self) -> list[Run]:
        """Returns the runs that are not marked as removed, oldest first."""
        nodes, projects = self._names("node"), self._names("pipeline")
        all_contexts = self._store.get_contexts_by_type("pipeline_run")
        contexts = [each for each in all_contexts if REMOVED not in each.custom_properties]
        found = {each.id: self._store.get_executions_by_context(each.id) for each in contexts}
        ids = [execution.id for group in found.values() for execution in group]
        inputs: dict[int, set[int]] = {}
        outputs: dict[int, set[int]] = {}
        for batch in _batches(ids):
            for event in self._store.get_events_by_execution_ids(batch):
                side = outputs if event.type in _OUTPUT else inputs
                side.setdefault(event.execution_id, set()).add(event.artifact_id)
        return sorted(
            (_run(context, found[context.id], nodes, projects, inputs, outputs) for context in contexts),
            key=lambda run: (run.started, run.context_id),
        )

    def artifacts(self, ids: Collection[int]) -> dict[int, Any]:
        """Returns the protos of artifacts by id."""
        return {each.id: each for batch in _batches(ids) for each in self._store.get_artifacts_by_id(batch)}

    def pushed(self, root: str) -> set[str]:
        """Returns the directories of all versions whose PushedModel artifact is below a folder."""
        return {
            destination
            for each in self._store.get_artifacts_by_type("PushedModel")
            if below(each.uri, root) and (destination := pushed_destination(each))
        }

    def set_deleted(self, ids: Collection[int], deleted: bool = True) -> None:
        """Marks artifacts as deleted, or as live again."""
        state = metadata_store_pb2.Artifact.DELETED if deleted else metadata_store_pb2.Artifact.LIVE
        for batch in _batches(ids):
            artifacts = [each for each in self._store.get_artifacts_by_id(batch) if each.state != state]
            for artifact in artifacts:
                artifact.state = state
            self._store.put_artifacts(artifacts)

    def set_removed(self, context_ids: Collection[int]) -> None:
        """Marks runs as removed."""
        for batch in _batches(context_ids):
            contexts = self._store.get_contexts_by_id(batch)
            for context in contexts:
                context.custom_properties[REMOVED].int_value = 1
            self._store.put_contexts(contexts)

    def _names(self, context_type: str) -> dict[int, str]:
        """Returns the name of each execution's context of a type, by id of the execution."""
        return {
            execution.id: context.name
            for context in self._store.get_contexts_by_type(context_type)
            for execution in self._store.get_executions_by_context(context.id)
        }


def is_blessed(artifact: Any) -> bool:
    """Tells whether an artifact blesses a model."""
    return artifact.type == "ModelBlessing" and artifact.custom_properties["blessed"].int_value == 1


def pushed_destination(artifact: Any) -> str:
    """Returns the version directory of a PushedModel artifact; empty if nothing was pushed, or for other types."""
    if artifact.type != "PushedModel" or artifact.custom_properties["pushed"].int_value != 1:
        return ""
    return artifact.custom_properties["pushed_destination"].string_value


def below(path: str, root: str) -> bool:
    """Tells whether a path is below a folder."""
    return path.startswith(files.join(root, ""))


def _run(
    context: Any,
    executions: Sequence[Any],
    nodes: Mapping[int, str],
    projects: Mapping[int, str],
    inputs: Mapping[int, set[int]],
    outputs: Mapping[int, set[int]],
) -> Run:
    group = [_execution(each, nodes.get(each.id, each.type).split(".")[-1]) for each in executions]
    ids = [each.id for each in group]
    times = [each.last_update_time_since_epoch for each in (context, *executions)]
    trainer = next((each for each in executions if nodes.get(each.id, "").split(".")[-1] == "Trainer"), None)
    return Run(
        context_id=context.id,
        name=context.name,
        project=next((projects[each] for each in ids if each in projects), ""),
        started=context.create_time_since_epoch / 1000,
        active=max(times) / 1000,
        finished=any(each.node == _LAST_NODE and each.done for each in group),
        executions=tuple(group),
        inputs=frozenset(artifact for each in ids for artifact in inputs.get(each, ())),
        outputs=frozenset(artifact for each in ids for artifact in outputs.get(each, ())),
        classes=_classes(trainer) if trainer is not None else "",
    )


def _execution(proto: Any, node: str) -> Execution:
    state = proto.last_known_state
    folders = {str(proto.id)}
    if _WORKING_FOLDER in proto.custom_properties:
        folders.add(proto.custom_properties[_WORKING_FOLDER].string_value)
    return Execution(proto.id, node, state in _DONE, frozenset(folders))


def _classes(trainer: Any) -> str:
    text = trainer.custom_properties["custom_config"].string_value or trainer.properties["custom_config"].string_value
    return str((json.loads(text or "null") or {}).get("class_map", ""))


def _batches(ids: Collection[int]) -> Iterable[list[int]]:
    ordered = sorted(ids)
    return (ordered[start : start + _BATCH] for start in range(0, len(ordered), _BATCH))
