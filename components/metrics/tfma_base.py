"""Base of the TensorFlow Model Analysis metrics: count the images once per model, and derive every value from the sums.

The counts include the sequences, because TFMA's slices have no limit: a data set of 5,000 names without a sequence in
them would make 5,000 slices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components import features
from components.class_map import ClassMap
from components.metrics import bootstrap, scores

SEQUENCE_NAMES = "sequence_names"
INTERVAL = "interval"
CHANGE_INTERVAL = "change_interval"
JOINT_INTERVAL = "joint_change_interval"
COUNTED_CHANGE = "counted_change"

MetricsDict = dict[tfma.metrics.MetricKey, Any]


@dataclasses.dataclass(frozen=True)
class MetricSettings:
    """The configuration of the metrics, written into the Evaluator's configuration as JSON.

    Attributes:
        class_map: the class map as `ClassMap.to_json` writes it.
        things: names of the classes that have instances; empty for the task semantic.
        significant_drops: see `GateSettings`.
        depth_scale: value of a depth map at a distance of 1 metre; None without depth.
        selection_split: the split that selected the epoch; empty if the gate judges all examples.
        code: hash of the code that computes the scores. The metrics ignore it; it makes a change of the code change
            the pipeline's cache key.
    """

    class_map: str
    things: Sequence[str] = ()
    significant_drops: bool = True
    depth_scale: float | None = None
    selection_split: str = ""
    code: str = ""


class Tally(Protocol):
    """Sums over images, from which the scores follow."""

    def add(self, *counted: Any) -> None:
        """Adds an image."""

    def merge(self, other: Any) -> None:
        """Adds the images of another tally."""

    def flat(self) -> Mapping[str, float]:
        """Returns the scores by metric name; NaN if undefined."""

    def resampled(self) -> bootstrap.Resampled:
        """Returns the scores that have an interval, of every bootstrap resample."""


def one_bytes(value: Any, what: str) -> bytes:
    """Returns a byte string, which TFMA passes as bytes or as an array of one element.

    Raises:
        ValueError: it is anything else.
    """
    array = np.asarray(value, dtype=object)
    if array.size != 1 or not isinstance(array.item(), bytes):
        raise ValueError(f"evaluation: the {what} of an example is {value!r:.200}, expected one byte string")
    return array.item()


class TallyMetric(tfma.metrics.Metric):
    """Base of a task's metric, which computes all values of the task.

    Args:
        name: name under which TFMA lists the metric; `metric` if None.
        settings: the fields of `MetricSettings`.
    """

    metric = ""

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        self.settings = MetricSettings(**settings)
        self.class_map = ClassMap.from_json(self.settings.class_map)
        super().__init__(tfma.metrics.merge_per_key_computations(self._create), name=name or self.metric, **settings)

    def empty_tally(self) -> Any:
        """Returns the tally of no image."""
        raise NotImplementedError

    def count(self, raw: Mapping[str, Any], label: Any, outputs: Any) -> Iterator[tuple[Any, ...]]:
        """Yields the arguments of the tally's `add` for one example; nothing if the example does not count.

        Args:
            raw: its raw features.
            label: its mask.
            outputs: the model's outputs by name, or the only output itself.
        """
        raise NotImplementedError

    def derive(self, tally: Any) -> Mapping[str, Any]:
        """Returns the values by metric name that a task has beside scores and intervals."""
        return {}

    def selects(self, raw: Mapping[str, Any]) -> bool:
        """Returns whether an example is in the split that selected the epoch."""
        split = self.settings.selection_split
        return bool(split) and one_bytes(raw[features.SPLIT], features.SPLIT).decode() == split

    def _create(self, model_name: str = "", output_name: str = "", **_: Any) -> tfma.metrics.MetricComputations:
        """Returns the computation of the tally and that of the values."""

        def key(name: str, model: str = model_name) -> tfma.metrics.MetricKey:
            # Thresholds that a MetricsSpec sets by metric name only match keys whose example_weighted is None.
            return tfma.metrics.MetricKey(name=name, model_name=model, output_name=output_name, example_weighted=None)

        # A leading underscore keeps the tally out of the results.
        tally_key = key(f"_{self.metric}_tally")
        baseline_key = key(f"_{self.metric}_tally", tfma.BASELINE_KEY)

        def result(metrics: MetricsDict) -> MetricsDict:
            tally = metrics[tally_key]
            values = {key(name): value for name, value in self._values(tally).items()}
            if model_name != tfma.BASELINE_KEY and baseline_key in metrics:
                for name, value in self._changes(tally, metrics[baseline_key]).items():
                    values[key(name).make_diff_key()] = value
            return values

        return [
            tfma.metrics.MetricComputation(
                keys=[tally_key],
                preprocessors=[_CountExample(self, model_name, output_name)],
                combiner=_SumImages(self, tally_key),
            ),
            tfma.metrics.DerivedMetricComputation(keys=[key(self.metric)], result=result),
        ]

    def _values(self, tally: Tally) -> dict[str, Any]:
        """Returns the scores, their 95 % intervals, float64 [2], as `interval/mean_iou`, and the task's values."""
        intervals = bootstrap.score_intervals(tally.resampled())
        return {
            **tally.flat(),
            **{f"{INTERVAL}/{name}": np.array(bounds) for name, bounds in intervals.items()},
            **self.derive(tally),
        }

    def _changes(self, tally: Tally, baseline: Tally) -> dict[str, Any]:
        """Returns the 95 % interval of each score's change, float64 [2], and the change that the gate counts.

        TFMA adds the plain differences itself.
        """
        after, before = tally.flat(), baseline.flat()
        sides = tally.resampled(), baseline.resampled()
        values: dict[str, Any] = {}
        for name, bounds in bootstrap.change_intervals(*sides).items():
            values[f"{CHANGE_INTERVAL}/{name}"] = np.array(bounds)
        for name, bounds in bootstrap.change_intervals(*sides, jointly=True).items():
            values[f"{JOINT_INTERVAL}/{name}"] = np.array(bounds)
            values[f"{COUNTED_CHANGE}/{name}"] = bootstrap.counted_change(
                after[name] - before[name], bounds, self.settings.significant_drops, name in scores.LOWER_IS_BETTER
            )
        return values


class _CountExample(tfma.metrics.Preprocessor):
    """Turns one example into its counts."""

    def __init__(self, metric: TallyMetric, model_name: str, output_name: str) -> None:
        super().__init__(name=f"{metric.metric}_{model_name}_{output_name}")
        self._metric, self._place = metric, (model_name, output_name)

    def process(self, extracts: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        # With a baseline, labels and predictions are keyed by model: only the getters read both forms.
        inputs = tfma.metrics.StandardMetricInputs(extracts)
        label, outputs = inputs.get_labels(*self._place), inputs.get_predictions(*self._place)
        yield from self._metric.count(extracts[tfma.FEATURES_KEY], label, outputs)


class _SumImages(beam.CombineFn):
    """Adds the counts of examples to a tally."""

    def __init__(self, metric: TallyMetric, key: tfma.metrics.MetricKey) -> None:
        super().__init__()
        self._metric, self._key = metric, key

    def create_accumulator(self) -> Any:
        return self._metric.empty_tally()

    def add_input(self, accumulator: Any, element: tuple[Any, ...]) -> Any:
        accumulator.add(*element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        total = self.create_accumulator()
        for accumulator in accumulators:
            total.merge(accumulator)
        return total

    def extract_output(self, accumulator: Any) -> MetricsDict:
        return {self._key: accumulator}
