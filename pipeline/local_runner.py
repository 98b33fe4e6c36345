"""Runs the pipeline in this process, node by node, and tells what becomes of each.

`LocalDagRunner` is the same loop without a word about progress, cache hits or times; nodes go
through TFX's own launcher here as there, so drivers, resolvers, cache and lineage are TFX's.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Literal

from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx

# The launcher and what feeds it have no public alias; LocalDagRunner is built on the same parts.
# tests/pipeline/test_local_runner.py runs a pipeline through them.
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils

State = Literal["ran", "cached", "failed"]


@dataclasses.dataclass(frozen=True)
class NodeResult:
    """What became of one node: its state and the seconds it took."""

    node_id: str
    state: State
    seconds: float
    execution_id: int | None


class LocalRunner:
    """Runs a pipeline's nodes in order, in this process."""

    def __init__(
        self,
        on_start: Callable[[str], None] = lambda node_id: None,
        on_end: Callable[[NodeResult], None] = lambda result: None,
    ) -> None:
        """Takes two listeners: one called before a node runs, one after, also where it failed."""
        self._on_start = on_start
        self._on_end = on_end

    def run(self, pipeline: tfx.dsl.Pipeline, run_id: str) -> list[NodeResult]:
        """Runs every node; the first exception stops the run and is raised as it came.

        Args:
            pipeline: as `create_pipeline` returns it.
            run_id: the name of the run in the metadata store.
        """
        ir = compiler.Compiler().compile(pipeline)
        runtime_parameter_utils.substitute_runtime_parameter(ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
        deployment = runner_utils.extract_local_deployment_config(ir)
        connection = getattr(
            deployment.metadata_connection_config, deployment.metadata_connection_config.WhichOneof("connection_config")
        )
        results = []
        for node in (wrapper.pipeline_node for wrapper in ir.nodes):
            node_id = node.node_info.id
            node_launcher = launcher.Launcher(
                pipeline_node=node,
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=ir.pipeline_info,
                pipeline_runtime_spec=ir.runtime_spec,
                executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
            )
            self._on_start(node_id)
            results.append(self._launch(node_id, node_launcher, connection))
        return results

    def _launch(self, node_id: str, node_launcher: launcher.Launcher, connection: object) -> NodeResult:
        start = time.monotonic()
        try:
            info = node_launcher.launch()
        except BaseException:
            self._on_end(NodeResult(node_id, "failed", time.monotonic() - start, None))
            raise
        execution_id = getattr(info, "execution_id", None)
        state: State = "cached" if _was_cached(execution_id, connection) else "ran"
        result = NodeResult(node_id, state, time.monotonic() - start, execution_id)
        self._on_end(result)
        return result


def _was_cached(execution_id: int | None, connection: object) -> bool:
    """Asks the metadata store whether an execution took its outputs from the cache."""
    if execution_id is None:
        return False
    with metadata.Metadata(connection) as store:
        (execution,) = store.store.get_executions_by_id([execution_id])
    return execution.last_known_state == metadata_store_pb2.Execution.CACHED
