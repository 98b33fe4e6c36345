"""Reports a finished run to MLflow and to the webhook, on any orchestrator."""

from __future__ import annotations

from collections.abc import Sequence

from tfx.utils import path_utils  # where a Model artifact keeps its SavedModel; no public alias

from components.report.data import load
from pipeline.configuration.config import RunConfig
from pipeline.running import tracking
from pipeline.running.notifications import Notifier
from pipeline.storage.store import NodeExecution


def announce(config: RunConfig, executions: Sequence[NodeExecution], page: str, notices: Notifier) -> None:
    """Logs a finished run to MLflow and sends `not_blessed` if its model was not blessed.

    Neither fails the run; `notices.say` gets a warning instead. `page` is the report's HTML file.
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
        notices.send("not_blessed", reasons or "the gate did not bless the model", report.scores)
