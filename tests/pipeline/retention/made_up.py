"""A made-up history in a real ML Metadata store, with the contexts, events and folders that TFX leaves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as pb

from components import files
from pipeline.storage.workdir import Workdir

CLASSES = '{"names": ["sky"]}'
_TYPES = {
    "ImageMaskExampleGen": ("examples", "Examples"),
    "Trainer": ("model", "Model"),
    "Evaluator": ("blessing", "ModelBlessing"),
    "Pusher": ("pushed_model", "PushedModel"),
    "Report": ("report", "Report"),
}


class History:
    """Adds runs to a work directory, each of the nodes above, and each with a file in every folder."""

    def __init__(self, workdir: Workdir) -> None:
        self.workdir = workdir
        workdir.create()
        self.store = MetadataStore(workdir.connection)
        self._types: dict[str, int] = {}

    def run(
        self,
        name: str,
        cached: dict[str, int] | None = None,
        blessed: bool = True,
        version: str = "",
        state: int = pb.Execution.COMPLETE,
        baseline: int | None = None,
        nodes: tuple[str, ...] = tuple(_TYPES),
        project: str = "segpipe",
        root: str = "",
    ) -> dict[str, int]:
        """Records a run.

        Args:
            name: the run.
            cached: artifacts that nodes took from the cache, by node.
            blessed: whether the model is.
            version: directory of the version that it pushed, made if missing; empty for none.
            state: of the last execution.
            baseline: a model that the Evaluator read too.
            nodes: those that ran.
            project: name of the pipeline.
            root: folder of the artifacts; the work directory's if empty.

        Returns:
            The id of the artifact that each node wrote or took; no artifact of an execution that is not complete.
        """
        cached = cached or {}
        contexts = [self._context("pipeline", project), self._context("pipeline_run", name)]
        made: dict[str, int] = {}
        for node in nodes:
            last = node == nodes[-1]
            final = state if last else pb.Execution.COMPLETE
            execution = pb.Execution(type_id=self._type("execution", node), last_known_state=final)
            if node in cached:
                execution.last_known_state = pb.Execution.CACHED
            if node == "Trainer":
                config = json.dumps({"class_map": CLASSES})
                execution.custom_properties["custom_config"].string_value = config
            both = [*contexts, self._context("node", f"{project}.{node}")]
            execution_id, _, _ = self.store.put_execution(execution, [], both)
            self._events(execution_id, pb.Event.INPUT, [*made.values()])
            if node == "Evaluator" and baseline is not None:
                self._events(execution_id, pb.Event.INPUT, [baseline])
            if node in cached:
                made[node] = cached[node]
                self._events(execution_id, pb.Event.OUTPUT, [made[node]])
                continue
            key, kind = _TYPES[node]
            uri = files.join(root or self.workdir.artifacts, node, key, str(execution_id))
            files.write_bytes(files.join(uri, "content"), b"x" * 1000)
            system = files.join(self.workdir.artifacts, node, ".system", "executor_execution", str(execution_id))
            files.write_bytes(files.join(system, "log"), b"x")
            if final != pb.Execution.COMPLETE:
                continue
            artifact = pb.Artifact(type_id=self._type("artifact", kind), uri=uri, state=pb.Artifact.LIVE)
            if node == "Evaluator":
                artifact.custom_properties["blessed"].int_value = int(blessed)
            if node == "Pusher":
                artifact.custom_properties["pushed"].int_value = int(bool(version))
                artifact.custom_properties["pushed_destination"].string_value = version
            (made[node],) = self.store.put_artifacts([artifact])
            self._events(execution_id, pb.Event.OUTPUT, [made[node]])
        if version:
            files.write_bytes(files.join(version, "saved_model.pb"), b"x" * 500)
        files.write_bytes(files.join(self.workdir.run(name), "log.txt"), b"x" * 10)
        time.sleep(0.002)  # ML Metadata counts milliseconds, by which runs are sorted
        return made

    def execution_of(self, run: str, node: str) -> int:
        """Returns the id of a run's execution of a node."""
        context = self.store.get_context_by_type_and_name("pipeline_run", run)
        kind = self._types[f"execution {node}"]
        found = [each.id for each in self.store.get_executions_by_context(context.id) if each.type_id == kind]
        return found[0]

    def live(self) -> set[int]:
        """Returns the ids of the artifacts that TFX would take from the cache."""
        return {each.id for each in self.store.get_artifacts() if each.state == pb.Artifact.LIVE}

    def there(self) -> set[int]:
        """Returns the ids of the artifacts whose files are all there."""
        return {a.id for a in self.store.get_artifacts() if files.exists(files.join(a.uri, "content"))}

    def _events(self, execution: int, kind: int, artifacts: list[int]) -> None:
        self.store.put_events([pb.Event(execution_id=execution, artifact_id=a, type=kind) for a in artifacts])

    def _context(self, kind: str, name: str) -> pb.Context:
        known = self.store.get_context_by_type_and_name(kind, name)
        if known is None:
            self.store.put_contexts([pb.Context(type_id=self._type("context", kind), name=name)])
            known = self.store.get_context_by_type_and_name(kind, name)
        return known

    def _type(self, group: str, name: str) -> int:
        key = f"{group} {name}"
        if key not in self._types:
            kinds = {"context": pb.ContextType, "execution": pb.ExecutionType, "artifact": pb.ArtifactType}
            put = getattr(self.store, f"put_{group}_type")
            self._types[key] = put(kinds[group](name=name))
        return self._types[key]


def age(path: str, seconds: float) -> None:
    """Makes the files of a folder older."""
    then = time.time() - seconds
    for file in Path(path).rglob("*"):
        os.utime(file, (then, then))
