"""Reads runs, executions and artifacts from ML Metadata, without importing TensorFlow or TFX."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Iterable
from typing import Any

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.errors import SegpipeError, UsageError

_PIPELINE = "pipeline"
_RUN = "pipeline_run"
_NODE = "node"
# Property of a run's context, set when `segpipe gc` removed the run's files. The rows in the database stay.
REMOVED = "removed"
_ATTEMPTS = 5
_STATES = {
    metadata_store_pb2.Execution.COMPLETE: "ran",
    metadata_store_pb2.Execution.CACHED: "cached",
    metadata_store_pb2.Execution.FAILED: "failed",
    metadata_store_pb2.Execution.RUNNING: "interrupted",
    metadata_store_pb2.Execution.CANCELED: "interrupted",
}


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
    """One node's execution in one run. `project` is the name of its pipeline; times are seconds since 1970."""

    id: int
    node_id: str
    state: str
    started: float
    ended: float
    properties: dict[str, Any]
    inputs: dict[str, list[Artifact]]
    outputs: dict[str, list[Artifact]]
    project: str = ""


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
        contexts = [each for each in self._store.get_contexts_by_type(_RUN) if REMOVED not in each.custom_properties]
        return [context.name for context in sorted(contexts, key=lambda context: context.id)]

    def has_run(self, run_id: str) -> bool:
        """Tells whether the store knows a run."""
        return self._store.get_context_by_type_and_name(_RUN, run_id) is not None

    def executions(self, run_id: str) -> list[NodeExecution]:
        """Returns a run's executions in the order they started. Raises UsageError for an unknown run."""
        context = self._store.get_context_by_type_and_name(_RUN, run_id)
        if context is None:
            known = self.run_ids()
            raise UsageError(f"run {run_id!r} is not in the metadata; known runs: {', '.join(known[-5:]) or 'none'}")
        executions = sorted(self._store.get_executions_by_context(context.id), key=lambda execution: execution.id)
        return [self._node_execution(execution) for execution in executions]

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

    def _node_execution(self, execution: Any) -> NodeExecution:
        names = {context.type: context.name for context in self._store.get_contexts_by_execution(execution.id)}
        inputs: dict[str, list[Artifact]] = {}
        outputs: dict[str, list[Artifact]] = {}
        events = self._store.get_events_by_execution_ids([execution.id])
        artifacts = {a.id: a for a in self._store.get_artifacts_by_id([event.artifact_id for event in events])}
        for event in events:
            target = inputs if event.type in (event.INPUT, event.DECLARED_INPUT) else outputs
            key = event.path.steps[0].key if event.path.steps else ""
            target.setdefault(key, []).append(_artifact(artifacts[event.artifact_id]))
        return NodeExecution(
            id=execution.id,
            node_id=names.get(_NODE, execution.type).split(".")[-1],
            state=_STATES.get(execution.last_known_state, "unknown"),
            started=execution.create_time_since_epoch / 1000,
            ended=execution.last_update_time_since_epoch / 1000,
            properties=_properties(execution),
            inputs=inputs,
            outputs=outputs,
            project=names.get(_PIPELINE, ""),
        )


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


def _artifact(proto: Any) -> Artifact:
    return Artifact(proto.id, proto.type, proto.uri, _properties(proto))


def _properties(proto: Any) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("value"))
        for group in (proto.properties, proto.custom_properties)
        for name, value in group.items()
        if value.WhichOneof("value")
    }
