"""Writes runs into a real ML Metadata store as TFX does: contexts, executions, and events with their artifacts."""

from __future__ import annotations

import os

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

STATES = {
    "ran": mlmd.Execution.COMPLETE,
    "cached": mlmd.Execution.CACHED,
    "failed": mlmd.Execution.FAILED,
    "running": mlmd.Execution.RUNNING,
}


class Recorder:
    """An ML Metadata store to which tests add runs.

    TFX names the contexts `pipeline`, `pipeline_run` and `node` (tfx/orchestration/portable/mlmd/common_utils.py and
    the compiler's constants), and gives each event the output's key as its path.
    """

    def __init__(self, path: str) -> None:
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = MetadataStore(config)

    def node(self, run, node_id, state="ran", inputs=None, outputs=None, properties=None, project="segpipe"):
        """Records one execution and returns its id; `inputs` and `outputs` are artifact ids by key."""
        type_id = self.store.put_execution_type(mlmd.ExecutionType(name=node_id))
        execution = mlmd.Execution(type_id=type_id, last_known_state=STATES[state])
        _set(execution.custom_properties, properties or {})
        contexts = [
            self._context("pipeline", project),
            self._context("pipeline_run", run),
            self._context("node", f"{project}.{node_id}"),
        ]
        execution_id, _, _ = self.store.put_execution(execution, [], contexts, reuse_context_if_already_exist=True)
        self.add(execution_id, mlmd.Event.INPUT, inputs or {})
        self.add(execution_id, mlmd.Event.OUTPUT, outputs or {})
        return execution_id

    def add(self, execution_id, kind, artifacts):
        """Adds inputs or outputs, artifact ids by key, to an execution."""
        for key, artifact_id in artifacts.items():
            event = mlmd.Event(type=kind, artifact_id=artifact_id, execution_id=execution_id)
            event.path.steps.add(key=key)
            event.path.steps.add(index=0)
            self.store.put_events([event])

    def artifact(self, type_name, uri="", **properties):
        """Adds an artifact and returns its id."""
        type_id = self.store.put_artifact_type(mlmd.ArtifactType(name=type_name))
        artifact = mlmd.Artifact(type_id=type_id, uri=str(uri), state=mlmd.Artifact.LIVE)
        _set(artifact.custom_properties, properties)
        return self.store.put_artifacts([artifact])[0]

    def train(self, run, model=None, state="ran"):
        """Records a Trainer whose files were removed, and returns the model's id; `model` is one from the cache."""
        model = model or self.artifact("Model")
        history = self.artifact("ModelRun", uri="/removed")
        self.node(run, "Trainer", state, outputs={"model": model, "model_run": history})
        return model

    def push(self, run, model, version, **options):
        """Records that a run pushed a model as a version."""
        number = os.path.basename(str(version))
        pushed = self.artifact("PushedModel", pushed=1, pushed_destination=str(version), pushed_version=number)
        self.node(run, "Pusher", inputs={"model": model}, outputs={"pushed_model": pushed}, **options)
        return pushed

    def _context(self, type_name, name):
        return mlmd.Context(type_id=self.store.put_context_type(mlmd.ContextType(name=type_name)), name=name)


def _set(target, values):
    for name, value in values.items():
        kind = {str: "string_value", int: "int_value", float: "double_value"}[type(value)]
        setattr(target[name], kind, value)
