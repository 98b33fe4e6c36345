"""What the metrics of every task share: one tally of the images per model, from which all metrics are derived.

Sequences are counted in the tally, not by TFMA's slices: the number of slices has no limit, and a data set of 5,000
names without a sequence in them would make 5,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

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


class Tally(Protocol):
    """Sums over images; scores follow from it."""

    def merge(self, other: Any) -> None:
        """Adds the images of another tally."""

    def flat(self) -> Mapping[str, float | None]:
        """Returns the scores by metric name; None or NaN if undefined."""

    def resampled(self) -> bootstrap.Resampled:
        """Returns the scores that have an interval, of every bootstrap resample."""


class Computation(NamedTuple):
    """How images are counted.

    Attributes:
        preprocessor: turns one example's label and prediction into its counts.
        empty: returns the tally of no image.
        add: adds the counts of one example to a tally.
    """

    preprocessor: tfma.metrics.Preprocessor
    empty: Callable[[], Any]
    add: Callable[[Any, Any], None]


def one_bytes(value: Any, what: str) -> bytes:
    """Returns the one byte string in a value, which arrives as bytes or as an array of one element.

    Raises:
        ValueError: it holds anything else.
    """
    array = np.asarray(value, dtype=object)
    if array.size != 1 or not isinstance(array.item(), bytes):
        raise ValueError(f"evaluation: the {what} of an example is {value!r:.200}, expected one byte string")
    return array.item()


def one_feature(extracts: dict[str, Any], name: str) -> bytes:
    """Returns a raw feature of one example that is one byte string."""
    return one_bytes(extracts[tfma.FEATURES_KEY][name], name)


def is_selection(extracts: dict[str, Any], selection_split: str) -> bool:
    """Tells whether an example is of the split that chose the epoch; never if the gate judges all examples."""
    return bool(selection_split) and one_feature(extracts, features.SPLIT).decode() == selection_split


class SumImages(beam.CombineFn):
    """Adds examples up; the accumulator is a tally."""

    def __init__(self, key: tfma.metrics.MetricKey, computation: Computation) -> None:
        super().__init__()
        self._key = key
        self._empty, self._add = computation.empty, computation.add

    def create_accumulator(self) -> Any:
        """Returns the tally of no image."""
        return self._empty()

    def add_input(self, accumulator: Any, element: Any) -> Any:
        """Adds one example."""
        self._add(accumulator, element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        """Adds the tallies of several bundles."""
        total = self.create_accumulator()
        for accumulator in accumulators:
            total.merge(accumulator)
        return total

    def extract_output(self, accumulator: Any) -> MetricsDict:
        """Returns the tally under its metric key."""
        return {self._key: accumulator}


def _key(name: str, model_name: str, output_name: str) -> tfma.metrics.MetricKey:
    # Thresholds that a MetricsSpec sets by metric name only match keys whose example_weighted is None.
    return tfma.metrics.MetricKey(name=name, model_name=model_name, output_name=output_name, example_weighted=None)


class TallyMetric(tfma.metrics.Metric):
    """Base of the metrics: a task says how it counts images, a metric what it derives from the tally.

    Args:
        class_map: the class map as `ClassMap.to_json` writes it.
        things: names of the classes that have instances; the metrics of masks read none.
        significant_drops: see `GateSettings`; only `PairedChange` reads it.
        depth_scale: value of a depth map at a distance of 1 metre; only the metrics of depth read it.
        selection_split: the split that chose the epoch, of which only the metric of its scores tells; empty if the
            gate judges it.
        code: hash of the code that computes the scores. It changes nothing here; as part of the
            metric's configuration it makes a change of the code a change of the pipeline's cache key.
        name: name under which TFMA lists the metric; the class's own if None.
    """

    metric = ""
    # Name of the tally; a leading underscore keeps a metric out of the results.
    tally = "_tally"

    def __init__(
        self,
        class_map: str,
        things: Iterable[str] = (),
        significant_drops: bool = True,
        depth_scale: float | None = None,
        selection_split: str = "",
        code: str = "",
        name: str | None = None,
    ) -> None:
        self._significant_drops, self._depth_scale = significant_drops, depth_scale
        super().__init__(
            tfma.metrics.merge_per_key_computations(self._create),
            class_map=class_map,
            things=list(things),
            significant_drops=significant_drops,
            depth_scale=depth_scale,
            selection_split=selection_split,
            code=code,
            name=name,
        )

    def _default_name(self) -> str:
        return self.metric

    def _create(
        self,
        class_map: str,
        things: Iterable[str] = (),
        significant_drops: bool = True,
        depth_scale: float | None = None,
        selection_split: str = "",
        code: str = "",
        name: str | None = None,
        model_name: str = "",
        output_name: str = "",
    ) -> tfma.metrics.MetricComputations:
        """Returns the shared tally and what this metric derives from it.

        Every metric repeats the same first computation; TFMA runs it once, because keys and names agree.
        """
        computation = self.computation(
            ClassMap.from_json(class_map), tuple(things), selection_split, model_name, output_name
        )
        tally_key = _key(self.tally, model_name, output_name)
        baseline_key = _key(self.tally, tfma.BASELINE_KEY, output_name)

        def result(metrics: MetricsDict) -> MetricsDict:
            tally = metrics[tally_key]
            values = {_key(key, model_name, output_name): value for key, value in self.derive(tally).items()}
            if model_name != tfma.BASELINE_KEY and baseline_key in metrics:
                for key, value in self.derive_change(tally, metrics[baseline_key]).items():
                    values[_key(key, model_name, output_name).make_diff_key()] = value
            return values

        return [
            tfma.metrics.MetricComputation(
                keys=[tally_key],
                preprocessors=[computation.preprocessor],
                combiner=SumImages(tally_key, computation),
            ),
            # The name tells the computations of different metrics apart.
            tfma.metrics.DerivedMetricComputation(keys=[_key(self.metric, model_name, output_name)], result=result),
        ]

    def computation(
        self, class_map: ClassMap, things: tuple[str, ...], selection_split: str, model_name: str, output_name: str
    ) -> Computation:
        """Returns how the task counts images; see the class for the arguments."""
        raise NotImplementedError

    def derive(self, tally: Any) -> Mapping[str, Any]:
        """Returns the metric's values by name."""
        raise NotImplementedError

    def derive_change(self, tally: Any, baseline: Any) -> Mapping[str, Any]:
        """Returns values of the comparison with a baseline by name; TFMA adds the plain differences itself."""
        return {}


class ScoreInterval(TallyMetric):
    """Bounds of each score's 95 % interval, float64 [2], named as in `interval/class_iou/road`."""

    metric = INTERVAL

    def derive(self, tally: Tally) -> Mapping[str, Any]:
        """Returns the intervals."""
        found = bootstrap.score_intervals(tally.resampled())
        return {f"{INTERVAL}/{name}": np.array(bounds) for name, bounds in found.items()}


class PairedChange(TallyMetric):
    """Each score's change against the baseline: the 95 % interval, float64 [2], and what the gate counts of it."""

    metric = COUNTED_CHANGE

    def derive(self, tally: Tally) -> Mapping[str, Any]:
        """Returns nothing: without a baseline no score changes."""
        return {}

    def derive_change(self, tally: Tally, baseline: Tally) -> Mapping[str, Any]:
        """Returns the intervals and the counted changes."""
        after, before = tally.flat(), baseline.flat()
        values: dict[str, Any] = {}
        sides = tally.resampled(), baseline.resampled()
        for name, bounds in bootstrap.change_intervals(*sides).items():
            values[f"{CHANGE_INTERVAL}/{name}"] = np.array(bounds)
        for name, bounds in bootstrap.change_intervals(*sides, jointly=True).items():
            change = scores.difference(after[name], before[name])
            values[f"{JOINT_INTERVAL}/{name}"] = np.array(bounds)
            values[f"{COUNTED_CHANGE}/{name}"] = bootstrap.counted_change(
                change, bounds, self._significant_drops, name in scores.LOWER_IS_BETTER
            )
        return values
