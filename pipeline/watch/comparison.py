"""Compares two sets of observations with TensorFlow Data Validation's drift and skew comparators.

Numbers are compared by the Jensen-Shannon divergence of their histograms (0 to 1). The classes of all pixels are
compared by the L-infinity distance: the largest difference of a class's proportion (0 to 1).
https://www.tensorflow.org/tfx/data_validation/get_started#checking_data_skew_and_drift
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas  # type: ignore[import-untyped]
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components import features

BRIGHTNESS = "brightness"
CONTRAST = "contrast"
PIXELS = "pixels by class"

Comparator = Literal["drift", "skew"]
_MEASURES = {
    anomalies_pb2.DriftSkewInfo.Measurement.JENSEN_SHANNON_DIVERGENCE: "Jensen-Shannon",
    anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY: "L-infinity",
}


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The largest distances that are not drift."""

    distribution: float
    class_share: float


@dataclasses.dataclass(frozen=True)
class Finding:
    """The distance of one feature from the training data.

    Attributes:
        feature: name of the feature.
        measure: name of the distance.
        distance: 0 for equal distributions, 1 for disjoint ones.
        bound: the largest distance that is not drift.
        before: mean in the training data; None if the feature has no mean.
        now: mean in the compared data; None if the feature has no mean.
    """

    feature: str
    measure: str
    distance: float
    bound: float
    before: float | None
    now: float | None

    @property
    def drifted(self) -> bool:
        """Whether the distance is beyond the bound."""
        return self.distance > self.bound


def statistics_of(columns: Mapping[str, Sequence[float]]) -> Any:
    """Returns TFDV's `DatasetFeatureStatistics` of columns of numbers, with one value for each image."""
    return tfdv.generate_statistics_from_dataframe(pandas.DataFrame(dict(columns)), n_jobs=1).datasets[0]


def read_statistics(path: str) -> Any:
    """Reads a file of StatisticsGen as `DatasetFeatureStatistics`."""
    return tfdv.load_stats_binary(path).datasets[0]


def combine(*parts: Any) -> Any:
    """Merges the features of several statistics; later ones override earlier ones."""
    merged: dict[str, Any] = {}
    for part in parts:
        merged.update({_name(feature): feature for feature in part.features})
    return statistics_pb2.DatasetFeatureStatistics(num_examples=parts[0].num_examples, features=merged.values())


def compare(
    reference: Any, current: Any, class_names: Sequence[str], comparator: Comparator, bounds: Bounds
) -> list[Finding]:
    """Compares statistics feature by feature, and the classes of all pixels together.

    Args:
        reference: statistics of the training data.
        current: statistics of the data to compare; only its features are compared.
        class_names: the classes; both sides have their proportions as features.
        comparator: drift between two spans of training data, or skew between training and serving.
        bounds: the allowed distances.

    Returns:
        The findings, furthest beyond its bound first.
    """
    known = {_name(feature): feature for feature in reference.features}
    present = {_name(feature): feature for feature in current.features if _name(feature) in known}
    schema = schema_pb2.Schema()
    for name in present:
        _add_comparator(schema, name, comparator).jensen_shannon_divergence.threshold = bounds.distribution
    _add_comparator(schema, PIXELS, comparator).infinity_norm.threshold = bounds.class_share
    before = combine(reference, _pixels(known, class_names))
    now = combine(current, _pixels(present, class_names))
    return sorted(
        (
            Finding(name, _MEASURES[m.type], m.value, m.threshold, _mean(known.get(name)), _mean(present.get(name)))
            for name, m in _measurements(schema, before, now, comparator)
        ),
        key=lambda finding: (finding.bound - finding.distance, finding.feature),
    )


def _measurements(schema: Any, before: Any, now: Any, comparator: Comparator) -> list[tuple[str, Any]]:
    """Returns TFDV's distances by feature; its anomalies of types and presence are ignored."""
    reference, current = (statistics_pb2.DatasetFeatureStatisticsList(datasets=[part]) for part in (before, now))
    if comparator == "drift":
        anomalies = tfdv.validate_statistics(current, schema, previous_statistics=reference)
    else:
        anomalies = tfdv.validate_statistics(reference, schema, serving_statistics=current)
    return [
        (info.path.step[0], measurement)
        for info in anomalies.drift_skew_info
        for measurement in getattr(info, f"{comparator}_measurements")
    ]


def _add_comparator(schema: Any, name: str, comparator: Comparator) -> Any:
    kind = schema_pb2.BYTES if name == PIXELS else schema_pb2.FLOAT
    return getattr(schema.feature.add(name=name, type=kind), f"{comparator}_comparator")


def _pixels(statistics: Mapping[str, Any], class_names: Sequence[str]) -> Any:
    """Returns the classes of all pixels as one categorical feature, from the mean proportion of each class."""
    feature = statistics_pb2.FeatureNameStatistics(type=statistics_pb2.FeatureNameStatistics.STRING)
    feature.path.step.append(PIXELS)
    fractions = [_mean(statistics[features.class_share(name)]) or 0.0 for name in class_names]
    feature.string_stats.common_stats.num_non_missing = 1
    feature.string_stats.unique = len(class_names)
    buckets = feature.string_stats.rank_histogram.buckets
    for rank, (name, fraction) in enumerate(zip(class_names, fractions, strict=True)):
        buckets.add(low_rank=rank, high_rank=rank, label=name, sample_count=fraction)
    return statistics_pb2.DatasetFeatureStatistics(num_examples=1, features=[feature])


def _mean(feature: Any) -> float | None:
    return feature.num_stats.mean if feature is not None and feature.HasField("num_stats") else None


def _name(feature: Any) -> str:
    return feature.path.step[0] if feature.path.step else feature.name
