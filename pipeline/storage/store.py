"""Reads runs, executions and artifacts from ML Metadata, without importing TensorFlow or TFX."""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.errors import SegpipeError, UsageError

_PIPELINE = "pipeline"
_RUN = "pipeline_run"
_NODE = "node"
# Property of a run's context, set when `segpipe gc` removed the run's files. The rows in the database stay.
REMOVED = "removed"
# Property of an execution: the number of its newest attempt. Each writes to folders of its own, see `attempt_name`.
ATTEMPT = "attempt"
_ATTEMPTS = 5
_BATCH = 500  # ids per query
_STATES = {
    metadata_store_pb2.Execution.COMPLETE: "ran",
    metadata_store_pb2.Execution.CACHED: "cached",
    metadata_store_pb2.Execution.FAILED: "failed",
    metadata_store_pb2.Execution.RUNNING: "interrupted",
    metadata_store_pb2.Execution.CANCELED: "interrupted",
}


def attempt_name(execution_id: int, attempt: int) -> str:
    """Returns the name of the folders of an attempt at an execution: 12 for the first one at 12, then 12-2."""
    return str(execution_id) if attempt == 1 else f"{execution_id}-{attempt}"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One artifact, with its properties by name."""

    id: int
    type: str
    uri: str
    properties: dict[str, Any]

    @property
    def pushed(self) -> str | None:
        """The version directory that a PushedModel names; None if nothing was pushed."""
        return str(self.properties["pushed_destination"]) if self.properties.get("pushed") else None


@dataclasses.dataclass(frozen=True)
class NodeExecution:
    """One node's execution in one run.

    Attributes:
        id: ML Metadata's id.
        node_id: name of the node in its pipeline.
        state: ran, cached, failed, interrupted or unknown.
        started: start, in seconds since 1970.
        ended: end, or last change if it has not ended, in seconds since 1970.
        properties: ML Metadata's properties and custom properties, by name.
        inputs: the artifacts that it read, by key.
        outputs: the artifacts that it wrote, took from the cache or, if it is a resolver, found.
        project: name of its pipeline.
        is_resolver: whether its outputs are artifacts of earlier executions.
    """

    id: int
    node_id: str
    state: str
    started: float
    ended: float
    properties: dict[str, Any]
    inputs: dict[str, list[Artifact]]
    outputs: dict[str, list[Artifact]]
    project: str = ""
    is_resolver: bool = False

    @property
    def finished(self) -> bool:
        """Whether it succeeded, or came from the cache."""
        return self.state in ("ran", "cached")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        context_id: ML Metadata's id of the run's context.
        name: name of the run and of its folder.
        started: start, in seconds since 1970.
        active: last change of its metadata, in seconds since 1970.
        executions: the executions of its nodes, in the order they started.
    """

    context_id: int
    name: str
    started: float
    active: float
    executions: Sequence[NodeExecution]

    @property
    def project(self) -> str:
        """Name of its pipeline; empty if unknown."""
        return next((execution.project for execution in self.executions if execution.project), "")

    @functools.cached_property
    def outputs(self) -> dict[int, Artifact]:
        """The artifacts that it wrote or took from the cache, by id."""
        return {a.id: a for each in self.executions if not each.is_resolver for a in _flat(each.outputs)}

    @functools.cached_property
    def inputs(self) -> dict[int, Artifact]:
        """The artifacts that it read or found, by id."""
        found = [group for each in self.executions for group in (each.inputs, each.outputs if each.is_resolver else {})]
        return {artifact.id: artifact for group in found for artifact in _flat(group)}


def find_output(executions: Iterable[NodeExecution], node_id: str, key: str) -> Artifact | None:
    """Returns the first artifact of a node's output; None if the node did not run or has no such output."""
    for execution in executions:
        if execution.node_id == node_id and execution.outputs.get(key):
            return execution.outputs[key][0]
    return None


class Store:
    """A read-only view of the metadata of past runs."""

    def __init__(self, source: Any) -> None:
        """Opens a store.

        Args:
            source: path of an SQLite file, or ML Metadata's connection to another store.

        Raises:
            UsageError: the file does not exist.
            SegpipeError: the store cannot be opened.
        """
        self._store = _open_file(source) if isinstance(source, str) else connect(source)

    def run_ids(self) -> list[str]:
        """Returns the names of the runs that `segpipe gc` did not remove, oldest first."""
        return [context.name for context in self._run_contexts()]

    def runs(self) -> list[Run]:
        """Returns the runs of `run_ids` with their executions, in far fewer queries than `executions` of each."""
        # Before the contexts: an execution that a run starts meanwhile would lack its own.
        found = {each.id: (each, self._store.get_executions_by_context(each.id)) for each in self._run_contexts()}
        contexts_of: dict[int, list[Any]] = {}
        for kind in (_NODE, _PIPELINE):
            for context in self._store.get_contexts_by_type(kind):
                for execution in self._store.get_executions_by_context(context.id):
                    contexts_of.setdefault(execution.id, []).append(context)
        protos = [proto for _, group in found.values() for proto in group]
        executions = {each.id: each for each in self._read(protos, contexts_of)}
        return [
            Run(
                context_id=context.id,
                name=context.name,
                started=context.create_time_since_epoch / 1000,
                active=max(each.last_update_time_since_epoch for each in (context, *group)) / 1000,
                executions=[executions[id_] for id_ in sorted(proto.id for proto in group)],
            )
            for context, group in found.values()
        ]

    def has_run(self, run_id: str) -> bool:
        """Tells whether the store knows a run."""
        return self._store.get_context_by_type_and_name(_RUN, run_id) is not None

    def executions(self, run_id: str) -> list[NodeExecution]:
        """Returns a run's executions in the order they started. Raises UsageError for an unknown run."""
        context = self._store.get_context_by_type_and_name(_RUN, run_id)
        if context is None:
            known = self.run_ids()
            raise UsageError(f"run {run_id!r} is not in the metadata; known runs: {', '.join(known[-5:]) or 'none'}")
        protos = self._store.get_executions_by_context(context.id)
        return self._read(protos, {each.id: self._store.get_contexts_by_execution(each.id) for each in protos})

    def artifacts(self, type_name: str) -> list[Artifact]:
        """Returns all artifacts of a type, oldest first."""
        found = self._store.get_artifacts_by_type(type_name)
        return [_artifact(proto) for proto in sorted(found, key=lambda proto: proto.id)]

    def run_that_made(self, artifact_id: int) -> str | None:
        """Returns the run that wrote an artifact, not one that took it from the cache; None if it is unknown."""
        events = self._store.get_events_by_artifact_ids([artifact_id])
        makers = [event.execution_id for event in events if event.type == event.OUTPUT]
        contexts = self._store.get_contexts_by_execution(min(makers)) if makers else []
        return next((context.name for context in contexts if context.type == _RUN), None)

    def pushed_to(self, model_id: int) -> str | None:
        """Returns the directory of the first version of a model; None if it was not pushed."""
        events = self._store.get_events_by_artifact_ids([model_id])
        readers = sorted(event.execution_id for event in events if event.type == event.INPUT)
        written = self._store.get_events_by_execution_ids(readers) if readers else []
        outputs = [event.artifact_id for event in written if event.type == event.OUTPUT]
        found = self._store.get_artifacts_by_id(outputs) if outputs else []
        return next((artifact.pushed for artifact in map(_artifact, found) if artifact.pushed), None)

    def _run_contexts(self) -> list[Any]:
        """Returns the contexts of the runs that `segpipe gc` did not remove, oldest first."""
        contexts = [each for each in self._store.get_contexts_by_type(_RUN) if REMOVED not in each.custom_properties]
        return sorted(contexts, key=lambda context: context.id)

    def _read(self, protos: Iterable[Any], contexts: Mapping[int, Iterable[Any]]) -> list[NodeExecution]:
        """Returns executions with their artifacts, in the order they started. `contexts` is by execution id."""
        by_id = {proto.id: proto for proto in protos}
        events: dict[int, list[Any]] = {id_: [] for id_ in by_id}
        for batch in batches(by_id):
            for event in self._store.get_events_by_execution_ids(batch):
                events[event.execution_id].append(event)
        used = {event.artifact_id for group in events.values() for event in group}
        artifacts = {a.id: _artifact(a) for batch in batches(used) for a in self._store.get_artifacts_by_id(batch)}
        return [_node_execution(by_id[id_], contexts.get(id_, ()), events[id_], artifacts) for id_ in sorted(by_id)]


def connect(config: Any) -> MetadataStore:
    """Opens a store that several processes share. Raises SegpipeError.

    If several processes open an empty database at once, all create its tables; ML Metadata fails in all but one of
    them, which must try again.
    """
    failure = ""
    for _ in range(_ATTEMPTS):
        try:
            return MetadataStore(config)
        except RuntimeError as error:
            failure = str(error).partition("\n")[0]
            time.sleep(random.random())
    raise SegpipeError(f"the metadata store cannot be opened: {failure}; check the settings under kubeflow.metadata")


def _open_file(path: str) -> MetadataStore:
    """Opens an SQLite file read-only. Raises UsageError if it does not exist, SegpipeError if it is not a store."""
    if not os.path.exists(path):
        raise UsageError(
            f"{path}: found no metadata, expected a work directory that a run has used. "
            "Name it with --out, or start a run: segpipe run --data DIR"
        )
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = path
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
    try:
        return MetadataStore(config)
    # Also if the process was killed while it created the store.
    except RuntimeError as error:
        why = str(error).partition("\n")[0]
        raise SegpipeError(
            f"{path}: the metadata store is damaged or incomplete ({why}), expected one that runs were recorded in. "
            "If no run ever finished here, delete the file; the next run creates it"
        ) from None


def batches(ids: Collection[int]) -> Iterator[list[int]]:
    """Yields sorted ids in groups for one query each."""
    ordered = sorted(ids)
    return (ordered[start : start + _BATCH] for start in range(0, len(ordered), _BATCH))


def _node_execution(
    proto: Any, contexts: Iterable[Any], events: Sequence[Any], artifacts: Mapping[int, Artifact]
) -> NodeExecution:
    names = {context.type: context.name for context in contexts}
    inputs: dict[str, list[Artifact]] = {}
    outputs: dict[str, list[Artifact]] = {}
    for event in events:
        target = inputs if event.type in (event.INPUT, event.DECLARED_INPUT) else outputs
        key = event.path.steps[0].key if event.path.steps else ""
        target.setdefault(key, []).append(artifacts[event.artifact_id])
    return NodeExecution(
        id=proto.id,
        node_id=names.get(_NODE, proto.type).split(".")[-1],
        state=_STATES.get(proto.last_known_state, "unknown"),
        started=proto.create_time_since_epoch / 1000,
        ended=proto.last_update_time_since_epoch / 1000,
        properties=_properties(proto),
        inputs=inputs,
        outputs=outputs,
        project=names.get(_PIPELINE, ""),
        # The type of event of TFX's resolvers (`publish_internal_execution`, 1.16 and 1.21).
        is_resolver=any(event.type == event.INTERNAL_OUTPUT for event in events),
    )


def _flat(groups: Mapping[str, Sequence[Artifact]]) -> Iterator[Artifact]:
    return (artifact for group in groups.values() for artifact in group)


def _artifact(proto: Any) -> Artifact:
    return Artifact(proto.id, proto.type, proto.uri, _properties(proto))


def _properties(proto: Any) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("value"))
        for group in (proto.properties, proto.custom_properties)
        for name, value in group.items()
        if value.WhichOneof("value")
    }
