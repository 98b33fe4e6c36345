"""Logs a finished run to MLflow: settings, curves, scores, report, and the model in the registry.

Everything is read from metadata and artifacts, so a run that came from the cache is logged too. Logging a run again
changes nothing. The limits are those of the installed client (mlflow/utils/validation.py of MLflow 3.17).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import yaml

from components import files, stored_folder
from components.artifact_files import read_model_metadata
from pipeline.configuration.loading import values_by_name

if TYPE_CHECKING:
    from components.report.data import ReportData
    from pipeline.configuration.config import RunConfig

# MLflow deprecated the stages of model versions in 2.9, in favour of aliases and tags (mlflow/tracking/client.py).
CANDIDATE, STABLE = "candidate", "stable"

_RUN, _STARTED, _FINGERPRINT = "segpipe.run_id", "segpipe.started", "segpipe.fingerprint"
_MODEL_FOLDER = "model"
# MLflow's defaults, 7 retries with growing pauses and 120 s a request, take many minutes if the server is down.
_CLIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        run_id: its name.
        started: start of its first component, in seconds since 1970.
        ended: end of its last component.
        report: the content of `report.json`.
        page: the report's HTML file, local or on an object store.
        model: the folder of the exported model, with `saved_model.pb`.
    """

    run_id: str
    started: float
    ended: float
    report: ReportData
    page: str
    model: str


def log_finished(config: RunConfig, run: FinishedRun, say: Callable[[str], None]) -> None:
    """Logs a run to the configured server. Never raises; `say` gets a warning instead."""
    uri = config.tracking.mlflow_uri
    try:
        say(f"MLflow   {log_run(config, run)}")
    except ImportError as error:
        say(
            f"warning: tracking.mlflow_uri: the run was not logged to {uri}: the package {error.name} is not "
            "installed. Install MLflow's client: pip install 'segpipe[mlflow]'"
        )
    # The model is already trained and pushed; an error of the tracking server must not fail the run.
    except Exception as error:
        reason = str(error).partition("\n")[0][:500]
        say(
            f"warning: tracking.mlflow_uri: the run was not logged to {uri}: {type(error).__name__}: {reason}\n"
            "Check that the server runs and that MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, are right. Run the same command again to log the same results, from the cache"
        )


def log_run(config: RunConfig, run: FinishedRun) -> str:
    """Logs a run once, and returns the address of its page.

    Raises:
        ImportError: the extra `mlflow` is not installed.
        mlflow.exceptions.MlflowException: the server cannot be reached, or rejects a request.
    """
    for name, value in _CLIENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    uri = config.tracking.mlflow_uri.rstrip("/")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = _experiment(client, config)
    tracked = _find(client, experiment, run) or client.create_run(
        experiment, start_time=_milliseconds(run.started), tags=_tags(run), run_name=run.run_id
    )
    run_id = tracked.info.run_id
    if tracked.info.status != "FINISHED":
        _log_values(client, run_id, config, run)
        client.log_text(run_id, files.read_bytes(run.page).decode(), "report.html")
        client.log_text(run_id, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "config.yaml")
        version = _register(client, run_id, config, run)
        client.set_tag(run_id, "segpipe.model_version", f"{config.served_name}/{version}")
        # Last, so that an incompletely logged run is completed the next time.
        client.set_terminated(run_id, "FINISHED", end_time=_milliseconds(run.ended))
    return f"{uri}/#/experiments/{experiment}/runs/{run_id}"


def _experiment(client: Any, config: RunConfig) -> str:
    """Returns the id of the experiment. Creates it if it does not exist."""
    name = config.tracking.experiment or config.project.name
    if client.get_experiment_by_name(name) is None:
        _create_once(client.create_experiment, name)
    return client.get_experiment_by_name(name).experiment_id


def _create_once(create: Callable[[str], Any], name: str) -> None:
    """Creates an experiment or a registered model, unless it exists: another run may have created it just now."""
    from mlflow.exceptions import MlflowException

    try:
        create(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find(client: Any, experiment: str, run: FinishedRun) -> Any:
    """Returns MLflow's run if this run was logged before, else None.

    It also compares the start time, because two machines may use the same name in the same second.
    """
    wanted = " and ".join(f"tags.`{name}` = '{_tags(run)[name]}'" for name in (_RUN, _STARTED))
    return next(iter(client.search_runs([experiment], wanted, max_results=1)), None)


def _tags(run: FinishedRun) -> dict[str, str]:
    lineage, verdict = run.report.lineage, run.report.verdict
    return {
        _RUN: run.run_id,
        _STARTED: str(_milliseconds(run.started)),
        "segpipe.verdict": _verdict(run),
        "segpipe.data_hash": lineage.data_hash,
        "segpipe.code_hash": lineage.code_hash,
        "segpipe.pushed": verdict.pushed or "",
        "segpipe.reason": "; ".join(check.reason for check in verdict.failures),
    }


def _verdict(run: FinishedRun) -> str:
    return "blessed" if run.report.verdict.blessed else "not blessed"


def _log_values(client: Any, run_id: str, config: RunConfig, run: FinishedRun) -> None:
    """Logs settings as parameters, and curves and scores as metrics, in batches of the allowed size."""
    from mlflow.entities import Metric, Param
    from mlflow.utils import validation

    # Strings unchanged, other values as JSON.
    texts = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in values_by_name(config).items()
    }
    params = [
        Param(name[: validation.MAX_ENTITY_KEY_LENGTH], text[: validation.MAX_PARAM_VAL_LENGTH])
        for name, text in texts.items()
    ]
    # The server ignores a metric with the same name, step, time and value, so logging again is harmless.
    time = _milliseconds(run.ended)
    metrics = [
        Metric(_key(name)[: validation.MAX_ENTITY_KEY_LENGTH], value, time, step)
        for name, value, step in _metrics(run.report)
    ]
    for start in range(0, len(params), validation.MAX_PARAMS_TAGS_PER_BATCH):
        client.log_batch(run_id, params=params[start : start + validation.MAX_PARAMS_TAGS_PER_BATCH])
    for start in range(0, len(metrics), validation.MAX_METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + validation.MAX_METRICS_PER_BATCH])


def _metrics(report: ReportData) -> Iterator[tuple[str, float, int]]:
    """Yields (name, value, step): scores at step 0, curves by epoch. Undefined values are left out."""
    groups: dict[str, Mapping[str, float | None]] = {
        "": report.scores,
        "selection/": report.selection_scores,
        "baseline/": report.baseline_scores or {},
    }
    for prefix, scores in groups.items():
        for name, value in scores.items():
            if _is_defined(value):
                yield prefix + name, float(value), 0
    # A resumed training may list an epoch twice; the later entry counts.
    for epoch in {entry["epoch"]: entry for entry in report.history}.values():
        for name, value in epoch.items():
            if name != "epoch" and _is_defined(value):
                yield f"training/{name}", float(value), epoch["epoch"]


def _is_defined(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _key(name: str) -> str:
    """Replaces the characters of a metric's name, such as those of class names, that MLflow does not accept."""
    return "/".join(re.sub(r"[^\w.\- ]", "_", part) or "_" for part in name.split("/"))


def _register(client: Any, run_id: str, config: RunConfig, run: FinishedRun) -> str:
    """Returns the version of the run's model in the registry, and registers the model if necessary.

    The server accepts a local folder as the source of a version only among the run's artifacts
    (mlflow/server/handlers.py, `_validate_source_run`). So the source of a local model is the run's folder `model`.
    """
    name = config.served_name
    _create_once(client.create_registered_model, name)
    fingerprint = _fingerprint(run.model)
    known = [v for v in client.search_model_versions(f"name = '{name}'") if v.tags.get(_FINGERPRINT) == fingerprint]
    if known:
        version = max(known, key=lambda each: int(each.version)).version
    else:
        version = client.create_model_version(
            name, _source(client, run_id, config, run), run_id, tags={**_tags(run), _FINGERPRINT: fingerprint}
        ).version
    client.set_model_version_tag(name, version, "segpipe.verdict", _verdict(run))
    client.set_model_version_tag(name, version, "segpipe.model", run.report.verdict.pushed or run.model)
    client.set_registered_model_alias(name, CANDIDATE, version)
    if run.report.verdict.pushed:
        client.set_registered_model_alias(name, STABLE, version)
    return version


def _source(client: Any, run_id: str, config: RunConfig, run: FinishedRun) -> str:
    """Returns the source of a version: the pushed folder on an object store, or the run's folder `model`."""
    location = run.report.verdict.pushed or run.model
    if config.tracking.log_model:
        client.log_artifacts(run_id, stored_folder.fetch(run.model), _MODEL_FOLDER)
    elif files.is_remote(location):
        return location
    else:
        client.log_dict(run_id, read_model_metadata(run.model), f"{_MODEL_FOLDER}/segpipe.json")
    return f"runs:/{run_id}/{_MODEL_FOLDER}"


def _fingerprint(model: str) -> str:
    """Returns the hash of `fingerprint.pb`, in which TensorFlow stores the hashes of graph and weights."""
    return hashlib.sha256(files.read_bytes(files.join(model, "fingerprint.pb"))).hexdigest()


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
