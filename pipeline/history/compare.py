"""Says what differed between two runs: settings, data, code, scores, and which components ran anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from components import artifact_files, files
from components.errors import SegpipeError
from components.example_gen.quarantine import read_counts
from pipeline.history.related import find_baseline
from pipeline.history.runs import code_hashes, property_of, running_run, state_now
from pipeline.storage.store import NodeExecution, Store
from pipeline.storage.workdir import CONFIG_FILE, Workdir

# The only score of a report that is better if it is smaller.
_SMALLER_IS_BETTER = "expected_calibration_error"
# Left out of the settings that a Report component records: what does not decide the result.
_NOT_RECORDED = ("kubeflow", "data.span")

_Pair = dict[str, Any]


def compare_runs(workdir: Workdir, first: str, second: str) -> dict[str, Any]:
    """Compares two runs of one work directory; the second is the one that changed.

    Args:
        workdir: the work directory.
        first: name of the run to compare with.
        second: name of the other run.

    Returns:
        What `segpipe compare --json` prints; docs/reference.md describes it. What a run did not get to, or what was
        removed since, is None.

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
    """What was recorded about a run, read from the metadata, its configuration and its `report.json`."""

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
        """Returns a component's state now; None if the run did not get to it."""
        node = self.nodes.get(node_id)
        return state_now(node.state, self._is_running) if node else None

    @property
    def code(self) -> dict[str, str]:
        """The hash of the source by component, that of the wiring as `pipeline`."""
        own = {"pipeline": self.lineage["code_hash"]} if "code_hash" in self.lineage else {}
        return {**own, **code_hashes(self.executions)}

    def compared_with(self, other: _Run) -> bool:
        """Tells whether this run's report has the scores of the other run's model, as its baseline."""
        if self.baseline is None or not (self.report or {}).get("baseline_scores"):
            return False
        return self.baseline.model_id in set().union(*(_output_ids(node) for node in other.executions))

    @property
    def counts(self) -> Mapping[str, Any] | None:
        """Examples and quarantined pairs by split; None if the run did not get to them, or they were removed."""
        quarantine = self._output("ImageMaskExampleGen", "quarantine")
        try:
            return read_counts(quarantine) if quarantine else None
        except OSError:
            return None

    def _read_report(self) -> Mapping[str, Any] | None:
        """Returns the content of `report.json`; None if the run has none, or it was removed."""
        report = self._output("Report", "report")
        try:
            return json.loads(files.read_bytes(files.join(report, artifact_files.REPORT_DATA))) if report else None
        except OSError:
            return None

    def _output(self, node_id: str, key: str) -> str:
        """Returns where a node's output lies; empty if it has none."""
        node = self.nodes.get(node_id)
        return node.outputs[key][0].uri if node and node.outputs.get(key) else ""

    def _read_settings(self, recorded: str | None) -> dict[str, Any] | None:
        """Returns the settings by dotted name: of the run's file, else those that its Report component recorded."""
        if not self.is_local:
            return _flat(json.loads(recorded)) if recorded else None
        try:
            return _flat(yaml.safe_load(files.read_bytes(self.own_file)))
        except (OSError, ValueError, yaml.YAMLError, AttributeError) as error:
            why = " ".join(str(error).split())
            raise SegpipeError(
                f"{self.own_file}: cannot be read ({why}); expected the settings of run {self.run_id}. "
                "Delete the file to compare with the settings in the metadata"
            ) from None


def _pair(a: Any, b: Any) -> _Pair:
    return {"a": a, "b": b}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted name; an empty group has none."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        result.update(_flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value})
    return result


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, _Pair]:
    """Returns what differs by name; a name that one does not have is None there."""
    return {name: _pair(a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}


def _settings(a: _Run, b: _Run) -> dict[str, _Pair] | None:
    if a.settings is None or b.settings is None:
        return None
    found = _differences(a.settings, b.settings)
    if a.is_local and b.is_local:
        return found
    return {name: pair for name, pair in found.items() if not name.startswith(_NOT_RECORDED)}


def _code(a: _Run, b: _Run) -> dict[str, _Pair]:
    """Returns the hashes of source that differ, of the components that both runs got to."""
    both = a.code.keys() & b.code.keys()
    return _differences(*({name: run.code[name] for name in both} for run in (a, b)))


def _packages(a: _Run, b: _Run) -> dict[str, _Pair] | None:
    """Returns the package versions that differ; None if a run did not get to its report, which records them."""
    first, second = (run.lineage.get("packages") for run in (a, b))
    return None if first is None or second is None else _differences(first, second)


def _data(a: _Run, b: _Run) -> dict[str, Any]:
    """Returns the content hashes, and examples and quarantined files by split; those are None if not known."""
    counts = [run.counts for run in (a, b)]
    examples = [found["examples"] if found else None for found in counts]
    left_out = [
        {split: sum(reasons.values()) for split, reasons in found["quarantined"].items()} if found else None
        for found in counts
    ]
    return {
        "same": None if None in (a.data_hash, b.data_hash) else a.data_hash == b.data_hash,
        "content_hash": _pair(a.data_hash, b.data_hash),
        "examples": _by_name(*examples),
        "quarantined": _by_name(*left_out),
    }


def _by_name(a: Mapping[str, int] | None, b: Mapping[str, int] | None) -> dict[str, _Pair]:
    """Returns numbers by name; 0 for a name that one does not have, None if all of one are not known."""
    names = sorted({*(a or {}), *(b or {})})
    return {name: _pair(*(None if side is None else side.get(name, 0) for side in (a, b))) for name in names}


def _scores(a: _Run, b: _Run) -> dict[str, Any] | None:
    """Returns every score with its change and, if both are of the same data, whether that is better.

    If one model was the other's baseline, its scores are those of the other's run, on the same images whatever the data
    of its own. None if a run has no report.
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
        turned = a.report.get("change_intervals", {})
        intervals = {name: [-high, -low] for name, (low, high) in turned.items()}
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
    """Returns `better`, `worse` or `same`; `unclear` if the 95 % interval of the change holds 0."""
    if change is None:
        return None
    if change == 0:
        return "same"
    if interval and interval[0] <= 0 <= interval[1]:
        return "unclear"
    return "better" if (change > 0) != (name == _SMALLER_IS_BETTER) else "worse"


def _components(a: _Run, b: _Run) -> list[dict[str, Any]]:
    """Returns each component's state in both runs, and whether both have the very same outputs, by way of the cache.

    What a run did not get to is None, and so is the comparison of a gate, which has no outputs. Resolvers, which
    always run, are left out.
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
