"""Runs nodes of a pipeline in this process, with TFX's launcher.

A local run launches all nodes in order, a task on Kubeflow only its own. Drivers, resolvers, cache and lineage are
TFX's in both.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx

# The launcher and its inputs have no public alias; LocalDagRunner uses the same ones.
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.orchestration.portable.mlmd import context_lib, execution_lib
from tfx.v1.dsl.io import fileio

from components import files, stored_folder
from components.errors import DataRejectedError, SegpipeError, UsageError
from pipeline.running import remote_fileio
from pipeline.running.staging import StagingLauncher

State = Literal["ran", "cached", "failed", "interrupted"]

_FILE_COUNT = "file_count"  # custom property of an artifact: its number of files when its node finished

# Custom properties of an execution that failed permanently: the message and the exit code of its error.
_FAILURE, _FAILURE_CODE = "failure", "failure_exit_code"


@dataclasses.dataclass(frozen=True)
class NodeResult:
    """How one node ended, after how many seconds."""

    node_id: str
    state: State
    seconds: float
    execution_id: int | None


def run_nodes(
    pipeline: tfx.dsl.Pipeline,
    run_id: str,
    on_start: Callable[[str], None] = lambda node_id: None,
    on_end: Callable[[NodeResult], None] = lambda result: None,
) -> list[NodeResult]:
    """Runs all nodes of a pipeline in order, as `LocalDagRunner` does, and reports each before and after.

    The first exception stops the run and is raised unchanged, after `on_end`.
    """
    run, results = PipelineRun(pipeline, run_id), []
    for node_id in run.node_ids:
        on_start(node_id)
        start = time.monotonic()
        try:
            results.append(run.launch(node_id))
        except BaseException as error:
            state: State = "failed" if isinstance(error, Exception) else "interrupted"
            on_end(NodeResult(node_id, state, time.monotonic() - start, None))
            raise
        on_end(results[-1])
    return results


class PipelineRun:
    """One run of a pipeline, whose nodes one or several processes launch."""

    def __init__(self, pipeline: tfx.dsl.Pipeline, run_id: str) -> None:
        """Compiles a pipeline, as `create_pipeline` returns it, for the run with a name."""
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
        """Returns the nodes that must run before a node."""
        return list(self._nodes[node_id].upstream_nodes)

    def inputs(self, node_id: str) -> list[tuple[str, str]]:
        """Returns the inputs of a node, as pairs of a node and its output."""
        specs = self._nodes[node_id].inputs.inputs.values()
        channels = [channel for spec in specs for channel in spec.channels if channel.producer_node_query.id]
        return [(channel.producer_node_query.id, channel.output_key) for channel in channels]

    def launch(self, node_id: str) -> NodeResult:
        """Runs a node, or takes its outputs from the cache.

        A node that this run already finished is not run again. If it was killed or failed, it restarts under the same
        execution, with new folders.

        Raises:
            SegpipeError: TFX could not find the node's inputs, or an earlier attempt of this run failed permanently.
                Other exceptions are those of the node.
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
                    self._record_failure(node_id, error)
                raise
            execution_id = getattr(info, "execution_id", None)
        else:
            execution_id = done.id
        state = self._state(node_id, execution_id)
        if done is None and state == "ran" and execution_id is not None:
            self._count_files(execution_id)
        return NodeResult(node_id, state, time.monotonic() - start, execution_id)

    def _record_failure(self, node_id: str, error: SegpipeError) -> None:
        """Records a permanent failure, so that retries on Kubeflow fail at once.

        They cannot tell by the exit code: Kubeflow's launcher exits with 1 for every failure of the container
        (kubeflow/pipelines 7b70c7b, backend/src/v2/cmd/launcher-v2/main.go).
        """
        with metadata.Metadata(self._connection) as store:
            contexts = context_lib.prepare_contexts(store, self._nodes[node_id].contexts)
            for execution in execution_lib.get_executions_associated_with_all_contexts(store, contexts):
                execution.custom_properties[_FAILURE].string_value = str(error)
                execution.custom_properties[_FAILURE_CODE].int_value = error.exit_code
                store.store.put_executions([execution])

    def _count_files(self, execution_id: int) -> None:
        """Records the number of files of each output, so that later runs notice missing ones."""
        with metadata.Metadata(self._connection) as store:
            artifacts = _outputs(store, [execution_id])
            for artifact in artifacts:
                artifact.custom_properties[_FILE_COUNT].int_value = _number_of_files(artifact.uri)
            store.store.put_artifacts(artifacts)

    def _drop_incomplete_outputs(self, store: Any, node_id: str) -> None:
        """Excludes earlier outputs of a node from the cache if some of their files are missing.

        Cleaners of temporary folders and interrupted copies leave folders with too few files. TFX 1.16 and 1.21
        (tfx/orchestration/portable/cache_utils.py, `get_cached_outputs`) only check that an output is LIVE and that its
        folder exists.
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
        """Returns the execution that finished a node in this run, or None. Prepares unfinished ones for a restart."""
        contexts = context_lib.prepare_contexts(metadata_handle=store, node_contexts=self._nodes[node_id].contexts)
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
                    "An earlier attempt of this run failed with this error, and a retry cannot succeed. Fix the cause "
                    "and start a new run"
                )
            # TFX does not restart a failed execution, and the other workers of a training wait for a running one.
            if not execution_lib.is_execution_active(execution):
                execution.last_known_state = metadata_store_pb2.Execution.RUNNING
                store.store.put_executions([execution])
        return None

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
        """Returns how an execution ended. Raises SegpipeError if it did not run."""
        if execution_id is None:
            return "ran"
        with metadata.Metadata(self._connection) as store:
            (execution,) = store.store.get_executions_by_id([execution_id])
        # If inputs are missing, the launcher records the failure and returns normally.
        if not execution_lib.is_execution_successful(execution):
            result = execution_lib.get_execution_result(execution, ignore_parse_errors=True)
            # TFX's message includes the traceback of an error in one of our resolver strategies.
            own = re.search(r"^components\.errors\.\w+: (.+)$", result.result_message if result else "", re.MULTILINE)
            raise SegpipeError(
                f"{node_id}: {own[1]}"
                if own
                else f"{node_id}: TFX could not find the node's inputs; expected the outputs of "
                f"{', '.join(self.upstream(node_id)) or 'no other node'} in this run. The log names the missing input"
            )
        return "cached" if execution.last_known_state == metadata_store_pb2.Execution.CACHED else "ran"


def _outputs(store: Any, execution_ids: Iterable[int]) -> list[Any]:
    """Returns the artifacts that executions wrote or took from the cache."""
    events = store.store.get_events_by_execution_ids(execution_ids)
    return store.store.get_artifacts_by_id({event.artifact_id for event in events if event.type == event.OUTPUT})


def _number_of_files(uri: str) -> int:
    """Returns the number of files of an artifact; the artifact of a single value is a file itself.

    On an object store, an artifact without a manifest counts as incomplete (-1): its task was killed.
    """
    if files.is_remote(uri):
        return len(stored_folder.read_manifest(uri).files) if stored_folder.is_published(uri) else -1
    if not fileio.isdir(uri):
        return int(fileio.exists(uri))
    return sum(len(names) for _, _, names in fileio.walk(uri))
