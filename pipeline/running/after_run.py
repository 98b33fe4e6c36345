"""What follows a run that reached its end, on any orchestrator: MLflow and the webhook learn of it."""

from __future__ import annotations

from collections.abc import Sequence

from tfx.utils import path_utils  # where a Model artifact keeps its SavedModel; no public alias

from components.report.data import load
from pipeline.configuration.config import RunConfig
from pipeline.running import tracking
from pipeline.running.notifications import RunNotices
from pipeline.storage.store import NodeExecution


def announce(config: RunConfig, executions: Sequence[NodeExecution], page: str, notices: RunNotices) -> None:
    """Logs a finished run to MLflow and sends `not_blessed` if its model was not blessed.

    Neither fails the run: what goes wrong is a warning, which `notices.say` gets.

    Args:
        config: every setting.
        executions: all executions of the run, as the metadata store returns them.
        page: the report's HTML file, local or on an object store.
        notices: the run's events.
    """
    report_node = next(execution for execution in executions if execution.node_id == "Report")
    report = load(report_node.outputs["report"][0].uri)
    if config.tracking.mlflow_uri:
        run = tracking.FinishedRun(
            run_id=notices.run_id,
            started=min(execution.started for execution in executions),
            ended=report_node.ended,
            report=report,
            page=page,
            model=path_utils.serving_model_path(report_node.inputs["model"][0].uri),
        )
        tracking.log_finished(config, run, notices.say)
    if not report.verdict.blessed:
        reasons = "; ".join(check.reason for check in report.verdict.failures)
        notices.send("not_blessed", reasons or "the gate withheld its blessing", report.scores)
