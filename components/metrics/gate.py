"""Builds the configuration of the pipeline's Evaluator: model signature, metrics, slices and thresholds.

The same configuration serves with and without a baseline; TFX adds the baseline's model and drops
the bounds on a change where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tensorflow_model_analysis.proto import config_pb2

from components import features
from components.class_map import ClassMap
from components.metrics import scores, tfma_metrics
from components.metrics.settings import GateSettings

SIGNATURE = "evaluation"


def eval_config(
    class_map: ClassMap, gate: GateSettings, code_hash: str, slices: Sequence[str] = (features.SEQUENCE,)
) -> config_pb2.EvalConfig:
    """Returns the Evaluator's configuration.

    Args:
        class_map: the classes of data and model.
        gate: the bounds; they hold over the whole split, never within a slice.
        code_hash: hash of the code that computes the metrics, part of the cache key.
        slices: raw features whose values are also evaluated apart.

    Raises:
        UsageError: the gate names a class that is unknown or ignored.
    """
    gate.check_classes(class_map)
    config = json.dumps({"class_map": class_map.to_json(), "code": code_hash}, sort_keys=True)
    return config_pb2.EvalConfig(
        # A nameless model spec is what TFX needs to add the baseline's by itself.
        model_specs=[
            config_pb2.ModelSpec(model_type="tf_generic", signature_name=SIGNATURE, label_key=features.MASK),
        ],
        slicing_specs=[config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=[key]) for key in slices)],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(class_name=metric.__name__, module=metric.__module__, config=config)
                    for metric in tfma_metrics.METRIC_CLASSES
                ],
                per_slice_thresholds={
                    name: _on_whole_split(threshold) for name, threshold in _thresholds(class_map, gate).items()
                },
            )
        ],
    )


def _thresholds(class_map: ClassMap, gate: GateSettings) -> dict[str, config_pb2.MetricThreshold]:
    """Returns the gate's bounds by metric name."""
    thresholds = {
        "mean_iou": config_pb2.MetricThreshold(
            value_threshold=_at_least(gate.min_mean_iou), change_threshold=_loses_at_most(gate.max_mean_drop)
        )
    }
    for name, bound in gate.min_class_iou.items():
        thresholds[scores.metric_name("class_iou", name)] = config_pb2.MetricThreshold(value_threshold=_at_least(bound))
    for name in class_map.scored_names:
        thresholds[scores.metric_name(tfma_metrics.CLASS_IOU_OR_ZERO, name)] = config_pb2.MetricThreshold(
            change_threshold=_loses_at_most(gate.max_class_drop)
        )
    return thresholds


def _at_least(bound: float) -> config_pb2.GenericValueThreshold:
    return config_pb2.GenericValueThreshold(lower_bound={"value": bound})


def _loses_at_most(drop: float) -> config_pb2.GenericChangeThreshold:
    return config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -drop}
    )


def _on_whole_split(threshold: config_pb2.MetricThreshold) -> config_pb2.PerSliceMetricThresholds:
    # A threshold without a slice holds on every slice; the empty slicing spec is the whole split.
    return config_pb2.PerSliceMetricThresholds(
        thresholds=[config_pb2.PerSliceMetricThreshold(slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold)]
    )
