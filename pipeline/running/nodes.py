"""Launches single nodes of a pipeline through TFX's own launcher, in this process.

The local runner launches one after the other, a task on Kubeflow just one; drivers, resolvers,
cache and lineage are TFX's in both.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Iterable
from typing import Any, Literal

from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx

# The launcher and what feeds it have no public alias; LocalDagRunner is built on the same parts.
# tests/pipeline/test_local_runner.py runs a pipeline through them.
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import outputs_utils, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import context_lib, execution_lib
from tfx.v1.dsl.io import fileio

from components import files, stored_folder
from components.errors import DataRejectedError, SegpipeError, UsageError
from pipeline.running import remote_fileio
from pipeline.running.staging import StagingLauncher

State = Literal["ran", "cached", "failed", "interrupted"]

_FILE_COUNT = "file_count"  # custom property of an artifact: the files it had when its node finished

# Custom properties of an execution that failed for good: the message and the exit code of its error.
_FAILURE, _FAILURE_CODE = "failure", "failure_exit_code"


@dataclasses.dataclass(frozen=True)
class NodeResult:
    """What became of one node: its state and the seconds it took."""

    node_id: str
    state: State
    seconds: float
    execution_id: int | None


class PipelineRun:
    """One run of a pipeline, whose nodes are launched one by one, by this process or by several."""

    def __init__(self, pipeline: tfx.dsl.Pipeline, run_id: str) -> None:
        """Compiles a pipeline.

        Args:
            pipeline: as `create_pipeline` returns it.
            run_id: the name of the run in the metadata store.
        """
        self._ir = compiler.Compiler().compile(pipeline)
        runtime_parameter_utils.substitute_runtime_parameter(
            self._ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
        )
        self._nodes = {wrapper.pipeline_node.node_info.id: wrapper.pipeline_node for wrapper in self._ir.nodes}
        self._deployment = runner_utils.extract_local_deployment_config(self._ir)
        config = self._deployment.metadata_connection_config
        self._connection = getattr(config, config.WhichOneof("connection_config"))
        remote_fileio.register()

    @property
    def node_ids(self) -> list[str]:
        """The nodes in an order in which they can run."""
        return list(self._nodes)

    def upstream(self, node_id: str) -> list[str]:
        """Returns the nodes that must have run before a node."""
        return list(self._nodes[node_id].upstream_nodes)

    def inputs(self, node_id: str) -> list[tuple[str, str]]:
        """Returns the outputs of other nodes that a node reads: pairs of node and output."""
        specs = self._nodes[node_id].inputs.inputs.values()
        channels = [channel for spec in specs for channel in spec.channels if channel.producer_node_query.id]
        return [(channel.producer_node_query.id, channel.output_key) for channel in channels]

    def launch(self, node_id: str) -> NodeResult:
        """Runs a node, or takes it from the cache.

        A node that this run has finished already is left alone; one that was killed, or failed,
        starts anew under the same execution, with empty outputs.

        Raises:
            SegpipeError: TFX could not find the node's inputs, or an earlier attempt of this run failed in a way that
                another cannot change; other exceptions come as the node raised them.
        """
        start = time.monotonic()
        with metadata.Metadata(self._connection) as store:
            done = self._earlier_execution(store, node_id)
            if done is None:
                self._drop_incomplete_outputs(store, node_id)
        if done is None:
            try:
                info = self._launcher(node_id).launch()
            except SegpipeError as error:
                if error.permanent:
                    self._remember(node_id, error)
                raise
            execution_id = getattr(info, "execution_id", None)
        else:
            execution_id = done.id
        state = self._state(node_id, execution_id)
        if done is None and state == "ran" and execution_id is not None:
            self._count_files(execution_id)
        return NodeResult(node_id, state, time.monotonic() - start, execution_id)

    def _remember(self, node_id: str, error: SegpipeError) -> None:
        """Records why a node failed for good: Kubeflow's retries do not learn its exit code.

        Its launcher ends with 1 whatever the container's exit code is (kubeflow/pipelines 7b70c7b,
        backend/src/v2/cmd/launcher-v2/main.go).
        """
        with metadata.Metadata(self._connection) as store:
            contexts = context_lib.prepare_contexts(store, self._nodes[node_id].contexts)
            for execution in execution_lib.get_executions_associated_with_all_contexts(store, contexts):
                execution.custom_properties[_FAILURE].string_value = str(error)
                execution.custom_properties[_FAILURE_CODE].int_value = error.exit_code
                store.store.put_executions([execution])

    def _count_files(self, execution_id: int) -> None:
        """Records how many files each output has, so that a later run can tell whether some are missing."""
        with metadata.Metadata(self._connection) as store:
            artifacts = _outputs(store, [execution_id])
            for artifact in artifacts:
                artifact.custom_properties[_FILE_COUNT].int_value = _number_of_files(artifact.uri)
            store.store.put_artifacts(artifacts)

    def _drop_incomplete_outputs(self, store: Any, node_id: str) -> None:
        """Keeps TFX from taking earlier outputs from the cache if some of their files are missing.

        A cleaner of temporary folders and a copy that was cut off leave folders with too few files. TFX 1.16 and 1.21
        (tfx/orchestration/portable/cache_utils.py, `get_cached_outputs`) take outputs whose state is LIVE and whose
        folder exists, whatever it holds.
        """
        (context,) = (
            c for c in self._nodes[node_id].contexts.contexts if c.type.name == constants.NODE_CONTEXT_TYPE_NAME
        )
        known = store.store.get_context_by_type_and_name(context.type.name, context.name.field_value.string_value)
        incomplete = []
        for artifact in _outputs(store, [each.id for each in store.store.get_executions_by_context(known.id)]):
            if artifact.state != artifact.LIVE or _FILE_COUNT not in artifact.custom_properties:
                continue
            expected, found = artifact.custom_properties[_FILE_COUNT].int_value, _number_of_files(artifact.uri)
            if found < expected:
                message = "%s: found %d of %d files; %s will not be taken from the cache"
                logging.getLogger(__name__).warning(message, artifact.uri, found, expected, node_id)
                artifact.state = artifact.DELETED
                incomplete.append(artifact)
        store.store.put_artifacts(incomplete)

    def _earlier_execution(self, store: Any, node_id: str) -> Any:
        """Returns the execution that finished a node in this run; an unfinished one begins anew, without outputs."""
        node = self._nodes[node_id]
        contexts = context_lib.prepare_contexts(metadata_handle=store, node_contexts=node.contexts)
        for execution in execution_lib.get_executions_associated_with_all_contexts(store, contexts):
            if execution_lib.is_execution_successful(execution):
                return execution
            if _FAILURE in execution.custom_properties:
                kind = next(
                    kind
                    for kind in (UsageError, DataRejectedError)
                    if kind.exit_code == execution.custom_properties[_FAILURE_CODE].int_value
                )
                raise kind(
                    f"{execution.custom_properties[_FAILURE].string_value}\n"
                    "An earlier attempt of this run found it, and another cannot change it. Mend it and start a new run"
                )
            self._remove_outputs(node, execution.id)
            # TFX would leave one that failed as it is, and a training's other workers wait for one that runs.
            if not execution_lib.is_execution_active(execution):
                execution.last_known_state = metadata_store_pb2.Execution.RUNNING
                store.store.put_executions([execution])
        return None

    def _remove_outputs(self, node: Any, execution_id: int) -> None:
        # TFX reuses the folders of an execution that was killed; what lies there would mix with the new.
        resolver = outputs_utils.OutputsResolver(
            pipeline_node=node, pipeline_info=self._ir.pipeline_info, pipeline_runtime_spec=self._ir.runtime_spec
        )
        for artifacts in resolver.generate_output_artifacts(execution_id).values():
            for artifact in artifacts:
                if fileio.isdir(artifact.uri):
                    fileio.rmtree(artifact.uri)
                elif fileio.exists(artifact.uri):
                    fileio.remove(artifact.uri)

    def _launcher(self, node_id: str) -> StagingLauncher:
        return StagingLauncher(
            pipeline_node=self._nodes[node_id],
            mlmd_connection=metadata.Metadata(self._connection),
            pipeline_info=self._ir.pipeline_info,
            pipeline_runtime_spec=self._ir.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(self._deployment, node_id),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(self._deployment, node_id),
        )

    def _state(self, node_id: str, execution_id: int | None) -> State:
        """Asks the metadata store how an execution ended."""
        if execution_id is None:
            return "ran"
        with metadata.Metadata(self._connection) as store:
            (execution,) = store.store.get_executions_by_id([execution_id])
        # The launcher records inputs that it cannot find and returns as if all were well.
        if not execution_lib.is_execution_successful(execution):
            result = execution_lib.get_execution_result(execution, ignore_parse_errors=True)
            # The traceback of an error in a strategy of our own, which TFX's errors are raised from.
            own = re.search(r"^components\.errors\.\w+: (.+)$", result.result_message if result else "", re.MULTILINE)
            raise SegpipeError(
                f"{node_id}: {own[1]}"
                if own
                else f"{node_id}: TFX could not find the node's inputs; expected the outputs of "
                f"{', '.join(self.upstream(node_id)) or 'no other node'} in this run. The log says which is missing"
            )
        return "cached" if execution.last_known_state == metadata_store_pb2.Execution.CACHED else "ran"


def _outputs(store: Any, execution_ids: Iterable[int]) -> list[Any]:
    """Returns the artifacts that executions wrote or took from the cache."""
    events = store.store.get_events_by_execution_ids(execution_ids)
    return store.store.get_artifacts_by_id({event.artifact_id for event in events if event.type == event.OUTPUT})


def _number_of_files(uri: str) -> int:
    """Returns how many files an artifact has; the artifact of a single value is a file itself.

    On an object store, an artifact without a manifest has none: a task that was killed left it.
    """
    if files.is_remote(uri):
        return len(stored_folder.read_manifest(uri).files) if stored_folder.is_published(uri) else -1
    if not fileio.isdir(uri):
        return int(fileio.exists(uri))
    return sum(len(names) for _, _, names in fileio.walk(uri))
