"""Runs the pipeline in this process, node by node, and tells what becomes of each.

`LocalDagRunner` is the same loop without a word about progress, cache hits or times.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tfx import v1 as tfx

from pipeline.running.nodes import NodeResult, PipelineRun, State


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
        run = PipelineRun(pipeline, run_id)
        return [self._launch(run, node_id) for node_id in run.node_ids]

    def _launch(self, run: PipelineRun, node_id: str) -> NodeResult:
        self._on_start(node_id)
        start = time.monotonic()
        try:
            result = run.launch(node_id)
        except BaseException as error:
            state: State = "failed" if isinstance(error, Exception) else "interrupted"
            self._on_end(NodeResult(node_id, state, time.monotonic() - start, None))
            raise
        self._on_end(result)
        return result
