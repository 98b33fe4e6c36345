"""A made-up history in a real ML Metadata store, with the contexts, events and folders that TFX leaves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2 as mlmd
from recorded_runs import Recorder

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
        self._recorder = Recorder(workdir.metadata)
        self._store = self._recorder.store

    def run(
        self,
        name: str,
        cached: dict[str, int] | None = None,
        blessed: bool = True,
        version: str = "",
        state: str = "ran",
        baseline: int | None = None,
        nodes: tuple[str, ...] = tuple(_TYPES),
        project: str = "segpipe",
        root: str = "",
    ) -> dict[str, int]:
        """Records a run.

        Args:
            name: the run.
            cached: artifacts that nodes took from the cache, by node.
            blessed: whether the model is blessed.
            version: directory of the version that it pushed, made if missing; empty for none.
            state: that of the last execution, as in `recorded_runs`.
            baseline: a model that the Evaluator read too.
            nodes: the nodes that ran.
            project: name of the pipeline.
            root: folder of the artifacts; the work directory's if empty.

        Returns:
            The id of the artifact that each node wrote or took; no artifact of an execution that is not complete.
        """
        cached, record = cached or {}, self._recorder
        made: dict[str, int] = {}
        for node in nodes:
            inputs = {**made, **({"baseline": baseline} if node == "Evaluator" and baseline is not None else {})}
            properties = {"custom_config": json.dumps({"class_map": CLASSES})} if node == "Trainer" else {}
            ended = "cached" if node in cached else state if node == nodes[-1] else "ran"
            execution_id = record.node(name, node, ended, inputs, properties=properties, project=project)
            key, kind = _TYPES[node]
            if node not in cached:
                uri = files.join(root or self.workdir.artifacts, node, key, str(execution_id))
                files.write_bytes(files.join(uri, "content"), b"x" * 1000)
                system = files.join(self.workdir.artifacts, node, ".system", "executor_execution", str(execution_id))
                files.write_bytes(files.join(system, "log"), b"x")
                if ended != "ran":
                    continue
            own = {
                "Evaluator": {"blessed": int(blessed)},
                "Pusher": {"pushed": int(bool(version)), "pushed_destination": version},
            }
            made[node] = cached[node] if node in cached else record.artifact(kind, uri, **own.get(node, {}))
            record.add(execution_id, mlmd.Event.OUTPUT, {key: made[node]})
        if version:
            files.write_bytes(files.join(version, "saved_model.pb"), b"x" * 500)
        files.write_bytes(files.join(self.workdir.run(name), "log.txt"), b"x" * 10)
        time.sleep(0.002)  # ML Metadata counts milliseconds, by which runs are sorted
        return made

    def execution_of(self, run: str, node: str) -> int:
        """Returns the id of a run's execution of a node."""
        context = self._store.get_context_by_type_and_name("pipeline_run", run)
        kind = self._store.get_execution_type(node).id
        return next(each.id for each in self._store.get_executions_by_context(context.id) if each.type_id == kind)

    def retry(self, run: str, node: str) -> str:
        """Records a second attempt at a node that did not finish, and returns the folder of its output."""
        (execution,) = self._store.get_executions_by_id([self.execution_of(run, node)])
        execution.custom_properties["attempt"].int_value = 2
        self._store.put_executions([execution])
        folder = files.join(self.workdir.artifacts, node, _TYPES[node][0], f"{execution.id}-2")
        files.write_bytes(files.join(folder, "content"), b"x")
        return folder

    def live(self) -> set[int]:
        """Returns the ids of the artifacts that TFX would take from the cache."""
        return {each.id for each in self._store.get_artifacts() if each.state == mlmd.Artifact.LIVE}

    def there(self) -> set[int]:
        """Returns the ids of the artifacts whose files are all there."""
        return {a.id for a in self._store.get_artifacts() if files.exists(files.join(a.uri, "content"))}


def age(path: str, seconds: float) -> None:
    """Makes the files of a folder older."""
    then = time.time() - seconds
    for file in Path(path).rglob("*"):
        os.utime(file, (then, then))
