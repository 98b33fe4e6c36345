"""Reads runs, their executions and their artifacts from ML Metadata, without importing TensorFlow or TFX."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from typing import Any

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.errors import SegpipeError, UsageError

_PIPELINE = "pipeline"
_RUN = "pipeline_run"
_NODE = "node"
# Property of a run's context: `segpipe gc` removed its files, and its rows stay.
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
    """One artifact: its type, where it lies, and its properties by name."""

    id: int
    type: str
    uri: str
    properties: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class NodeExecution:
    """One node's execution in one run; `project` is the name of its pipeline."""

    id: int
    node_id: str
    state: str
    started: float
    ended: float
    properties: dict[str, Any]
    inputs: dict[str, list[Artifact]]
    outputs: dict[str, list[Artifact]]
    project: str = ""


class Store:
    """A view of the metadata that runs left behind; nothing here writes."""

    def __init__(self, source: Any) -> None:
        """Opens a store.

        Args:
            source: path of an SQLite file, or ML Metadata's connection to another store.

        Raises:
            UsageError: there is no such file.
            SegpipeError: the store cannot be reached.
        """
        self._store = _open_file(source) if isinstance(source, str) else connect(source)

    def run_ids(self) -> list[str]:
        """Returns the names of the runs that `segpipe gc` did not remove, oldest first."""
        contexts = [each for each in self._store.get_contexts_by_type(_RUN) if REMOVED not in each.custom_properties]
        return [context.name for context in sorted(contexts, key=lambda context: context.id)]

    def has_run(self, run_id: str) -> bool:
        """Tells whether anything of a run has been recorded."""
        return self._store.get_context_by_type_and_name(_RUN, run_id) is not None

    def executions(self, run_id: str) -> list[NodeExecution]:
        """Returns a run's executions in the order they began. Raises UsageError for an unknown run."""
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
        """Returns the name of the run that made an artifact, not of one that took it from the cache; None if none."""
        events = self._store.get_events_by_artifact_ids([artifact_id])
        makers = [event.execution_id for event in events if event.type == event.OUTPUT]
        contexts = self._store.get_contexts_by_execution(min(makers)) if makers else []
        return next((context.name for context in contexts if context.type == _RUN), None)

    def pushed_to(self, model_id: int) -> str | None:
        """Returns the directory of the first version that a model was pushed as; None if it was not pushed."""
        events = self._store.get_events_by_artifact_ids([model_id])
        readers = sorted(event.execution_id for event in events if event.type == event.INPUT)
        written = self._store.get_events_by_execution_ids(readers) if readers else []
        outputs = [event.artifact_id for event in written if event.type == event.OUTPUT]
        for proto in self._store.get_artifacts_by_id(outputs) if outputs else []:
            found = _artifact(proto)
            if found.type == "PushedModel" and found.properties.get("pushed"):
                return str(found.properties["pushed_destination"])
        return None

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
    """Opens a store that many processes share.

    Those that meet an empty database at once all make its tables; ML Metadata tells all but one to try again.
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
    """Opens an SQLite file to read it. Raises UsageError where there is none, SegpipeError where it is no store."""
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
    # Of one that was being made when its process was killed, too.
    except RuntimeError as error:
        why = str(error).partition("\n")[0]
        raise SegpipeError(
            f"{path}: found no whole metadata store ({why}), expected one that runs were recorded in. "
            "Where none ever was, remove the file; the next run makes it"
        ) from None


def _artifact(proto: Any) -> Artifact:
    return Artifact(proto.id, proto.type, proto.uri, _properties(proto))


def _properties(proto: Any) -> dict[str, Any]:
    """Returns properties and custom properties as plain Python values."""
    return {
        name: getattr(value, value.WhichOneof("value"))
        for group in (proto.properties, proto.custom_properties)
        for name, value in group.items()
        if value.WhichOneof("value")
    }
