"""Compares two runs: settings, data, code, scores, and which components ran."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from components import artifact_files, files
from components.errors import SegpipeError
from components.example_gen.quarantine import read_counts
from pipeline.configuration.renamed import stored_values
from pipeline.history.related import find_baseline
from pipeline.history.runs import code_hashes, property_of, running_run, state_now
from pipeline.storage.store import NodeExecution, Store, find_output
from pipeline.storage.workdir import CONFIG_FILE, Workdir

# The only score of a report for which smaller is better.
_SMALLER_IS_BETTER = "expected_calibration_error"
# Settings that a Report component does not record, because they do not affect the result.
_NOT_RECORDED = ("kubeflow", "data.span")

_Pair = dict[str, Any]


def compare_runs(workdir: Workdir, first: str, second: str) -> dict[str, Any]:
    """Compares two runs of one work directory. Changes are from the first to the second.

    Returns:
        The output of `segpipe compare --json`; docs/reference.md describes it. Values are None if a run did not reach
        them, or if they were removed since.

    Raises:
        UsageError: the metadata is missing, or does not know one of the runs.
        SegpipeError: a run's settings cannot be read.
    """
    store = Store(workdir.source)
    runs = [_Run(workdir, store, name) for name in (first, second)]
    return {
        "runs": _pair(first, second),
        "settings": _settings(*runs),
        "data": _data(*runs),
        "code": _code(*runs),
        "packages": _packages(*runs),
        "scores": _scores(*runs),
        "components": _components(*runs),
    }


class _Run:
    """The records of a run, from the metadata, its configuration and its `report.json`."""

    def __init__(self, workdir: Workdir, store: Store, run_id: str) -> None:
        self.run_id = run_id
        self._is_running = run_id == running_run(workdir)
        self.executions: Sequence[NodeExecution] = store.executions(run_id)
        self.nodes = {execution.node_id: execution for execution in self.executions}
        recorded = self.nodes["Report"].properties if "Report" in self.nodes else {}
        self.lineage: Mapping[str, Any] = json.loads(recorded.get("lineage") or "{}")
        self.own_file = files.join(workdir.run(run_id), CONFIG_FILE)
        self.is_local = files.exists(self.own_file)
        self.settings = self._read_settings(recorded.get("configuration"))
        self.data_hash = property_of(self.executions, "ImageMaskExampleGen", "examples", "input_fingerprint")
        self.report = self._read_report()
        self.baseline = find_baseline(store, self.executions)

    def state(self, node_id: str) -> str | None:
        """Returns a component's state; None if the run did not reach it."""
        node = self.nodes.get(node_id)
        return state_now(node.state, self._is_running) if node else None

    @property
    def code(self) -> dict[str, str]:
        """The source hash of each component, and of the wiring as `pipeline`."""
        own = {"pipeline": self.lineage["code_hash"]} if "code_hash" in self.lineage else {}
        return {**own, **code_hashes(self.executions)}

    def compared_with(self, other: _Run) -> bool:
        """Tells whether the other run's model is the baseline of this run's report."""
        if self.baseline is None or not (self.report or {}).get("baseline_scores"):
            return False
        return self.baseline.model_id in set().union(*(_output_ids(node) for node in other.executions))

    @property
    def counts(self) -> Mapping[str, Any] | None:
        """Examples and quarantined pairs by split; None if the run did not reach them, or they were removed."""
        quarantine = find_output(self.executions, "ImageMaskExampleGen", "quarantine")
        try:
            return read_counts(quarantine.uri) if quarantine else None
        except OSError:
            return None

    def _read_report(self) -> Mapping[str, Any] | None:
        """Returns the content of `report.json`; None if the run did not reach it, or it was removed."""
        report = find_output(self.executions, "Report", "report")
        try:
            return json.loads(files.read_bytes(files.join(report.uri, artifact_files.REPORT_DATA))) if report else None
        except OSError:
            return None

    def _read_settings(self, recorded: str | None) -> dict[str, Any] | None:
        """Returns the settings by current name, from the run's file or, without it, from its Report component."""
        if not self.is_local:
            return stored_values(_flat(json.loads(recorded))) if recorded else None
        try:
            return stored_values(_flat(yaml.safe_load(files.read_bytes(self.own_file))))
        except (OSError, ValueError, yaml.YAMLError, AttributeError) as error:
            why = " ".join(str(error).split())
            raise SegpipeError(
                f"{self.own_file}: cannot be read ({why}); expected the settings of run {self.run_id}. "
                "Delete the file to compare with the settings in the metadata"
            ) from None


def _pair(a: Any, b: Any) -> _Pair:
    return {"a": a, "b": b}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        result.update(_flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value})
    return result


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, _Pair]:
    """Returns the values that differ, by name; a missing value is None."""
    return {name: _pair(a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}


def _settings(a: _Run, b: _Run) -> dict[str, _Pair] | None:
    if a.settings is None or b.settings is None:
        return None
    found = _differences(a.settings, b.settings)
    if a.is_local and b.is_local:
        return found
    return {name: pair for name, pair in found.items() if not name.startswith(_NOT_RECORDED)}


def _code(a: _Run, b: _Run) -> dict[str, _Pair]:
    """Returns the source hashes that differ, for the components that both runs reached."""
    both = a.code.keys() & b.code.keys()
    return _differences(*({name: run.code[name] for name in both} for run in (a, b)))


def _packages(a: _Run, b: _Run) -> dict[str, _Pair] | None:
    """Returns the package versions that differ; None if a run did not reach its report, which records them."""
    first, second = (run.lineage.get("packages") for run in (a, b))
    return None if first is None or second is None else _differences(first, second)


def _data(a: _Run, b: _Run) -> dict[str, Any]:
    """Returns the content hashes, and the examples and quarantined pairs by split, which are None if unknown."""
    counts = [run.counts for run in (a, b)]
    examples = [found["examples"] if found else None for found in counts]
    quarantined = [
        {split: sum(reasons.values()) for split, reasons in found["quarantined"].items()} if found else None
        for found in counts
    ]
    return {
        "same": None if None in (a.data_hash, b.data_hash) else a.data_hash == b.data_hash,
        "content_hash": _pair(a.data_hash, b.data_hash),
        "examples": _by_name(*examples),
        "quarantined": _by_name(*quarantined),
    }


def _by_name(a: Mapping[str, int] | None, b: Mapping[str, int] | None) -> dict[str, _Pair]:
    """Returns pairs of numbers by name: 0 for a missing name, None if a whole side is unknown."""
    names = sorted({*(a or {}), *(b or {})})
    return {name: _pair(*(None if side is None else side.get(name, 0) for side in (a, b))) for name in names}


def _scores(a: _Run, b: _Run) -> dict[str, Any] | None:
    """Returns every score with its change and, if both runs scored the same data, a verdict; None without a report.

    If one model was the other's baseline, the other run scored both on the same images; those scores are used.
    """
    if a.report is None or b.report is None:
        return None
    splits = [run.get("gate_split", run.get("eval_split")) for run in (a.report, b.report)]
    same = splits[0] == splits[1] and a.data_hash == b.data_hash and a.report["class_map"] == b.report["class_map"]
    first, second, intervals = a.report["scores"], b.report["scores"], {}
    evaluated_in = None
    if b.compared_with(a):
        evaluated_in, first, intervals = b.run_id, b.report["baseline_scores"], b.report.get("change_intervals", {})
    elif a.compared_with(b):
        evaluated_in, second = a.run_id, a.report["baseline_scores"]
        reversed_intervals = a.report.get("change_intervals", {})
        intervals = {name: [-high, -low] for name, (low, high) in reversed_intervals.items()}
    comparable = same or evaluated_in is not None
    metrics = {}
    for name in dict.fromkeys([*first, *second]):
        values = first.get(name), second.get(name)
        change = None if values[0] is None or values[1] is None else values[1] - values[0]
        metrics[name] = {
            **_pair(*values),
            "change": change,
            "change_interval": intervals.get(name),
            "verdict": _verdict(name, change, intervals.get(name)) if comparable else None,
        }
    return {
        "same_data": comparable,
        "evaluated_in": evaluated_in,
        "gate_split": _pair(*splits),
        "blessed": _pair(a.report["verdict"]["blessed"], b.report["verdict"]["blessed"]),
        "metrics": metrics,
    }


def _verdict(name: str, change: float | None, interval: Sequence[float] | None) -> str | None:
    """Returns `better`, `worse` or `same`; `unclear` if the 95 % interval of the change includes 0."""
    if change is None:
        return None
    if change == 0:
        return "same"
    if interval and interval[0] <= 0 <= interval[1]:
        return "unclear"
    return "better" if (change > 0) != (name == _SMALLER_IS_BETTER) else "worse"


def _components(a: _Run, b: _Run) -> list[dict[str, Any]]:
    """Returns each component's state in both runs, and whether both have the same outputs, because of the cache.

    The state is None if a run did not reach the component; `same_outputs` also for a gate, which has no outputs.
    Resolvers, which always run, are left out.
    """
    names = [name for name in dict.fromkeys([*a.nodes, *b.nodes]) if not name.endswith("Resolver")]
    rows = []
    for name in names:
        first, second = (_output_ids(run.nodes.get(name)) for run in (a, b))
        same = first == second if first and second else None
        rows.append({"name": name, **_pair(a.state(name), b.state(name)), "same_outputs": same})
    return rows


def _output_ids(node: NodeExecution | None) -> set[int]:
    return {artifact.id for group in node.outputs.values() for artifact in group} if node else set()
