"""Build the configuration of the pipeline's Evaluator: model signature, metrics and thresholds.

One configuration works with and without a baseline: TFX adds the baseline's model if there is one, and drops the bounds
on changes if not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from components import features
from components.class_map import ClassMap
from components.metrics import scores, tfma_base
from components.metrics.settings import GateSettings
from components.metrics.tfma_depth import DepthMetric
from components.metrics.tfma_instances import InstanceMetric
from components.metrics.tfma_metrics import MaskMetric

SIGNATURE = "evaluation"


def eval_config(
    class_map: ClassMap,
    gate: GateSettings,
    code_hash: str,
    selection_split: str = "",
    things: Sequence[str] = (),
    depth_scale: float | None = None,
) -> config_pb2.EvalConfig:
    """Returns the Evaluator's configuration.

    Args:
        class_map: the classes of data and model.
        gate: the bounds on the scores over the whole split that the gate judges.
        code_hash: hash of the code that computes the metrics, part of the cache key.
        selection_split: the split that selected the epoch, if its examples are evaluated too; empty if the gate
            judges all examples.
        things: names of the classes that have instances; empty for the task semantic.
        depth_scale: value of a depth map at a distance of 1 metre; None for a model without depth.

    Raises:
        UsageError: the gate names a class that does not exist or is not scored.
    """
    gate.check_classes(class_map, things)
    settings = tfma_base.MetricSettings(
        class_map=class_map.to_json(),
        things=tuple(things),
        significant_drops=gate.significant_drops,
        depth_scale=depth_scale,
        selection_split=selection_split,
        code=code_hash,
    )
    config = json.dumps(dataclasses.asdict(settings), sort_keys=True)
    metrics: list[type[tfma_base.TallyMetric]] = [InstanceMetric if things else MaskMetric]
    if depth_scale:
        metrics.append(DepthMetric)
    return config_pb2.EvalConfig(
        # TFX adds the baseline's model spec by itself only if this one has no name.
        model_specs=[
            config_pb2.ModelSpec(model_type="tf_generic", signature_name=SIGNATURE, label_key=features.MASK),
        ],
        slicing_specs=[config_pb2.SlicingSpec()],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(class_name=metric.__name__, module=metric.__module__, config=config)
                    for metric in metrics
                ],
                thresholds=_thresholds(gate, class_map.scored_names, things, bool(depth_scale)),
            )
        ],
    )


def _thresholds(
    gate: GateSettings, scored_names: Sequence[str], things: Sequence[str], depth: bool
) -> dict[str, config_pb2.MetricThreshold]:
    """Returns the gate's bounds by metric name."""
    task = scores.INSTANCE if things else scores.SEMANTIC
    bounds = {task.main: gate.min_mask_ap if things else gate.min_mean_iou}
    drops = {task.main: gate.max_mean_drop}
    for name, bound in (gate.min_class_ap if things else gate.min_class_iou).items():
        bounds[scores.metric_name(task.by_class, name)] = bound
    for name in things or scored_names:
        drops[scores.metric_name(task.by_class, name)] = gate.max_class_drop
    thresholds = {name: _value_threshold(lower_bound={"value": bound}) for name, bound in bounds.items()}
    thresholds |= {_change(name): _change_threshold(-drop, "HIGHER_IS_BETTER") for name, drop in drops.items()}
    if depth:
        error = scores.DEPTH[0]
        thresholds[error] = _value_threshold(upper_bound={"value": gate.max_abs_rel})
        thresholds[_change(error)] = _change_threshold(gate.max_abs_rel_rise, "LOWER_IS_BETTER")
    return thresholds


def _value_threshold(**bounds: Any) -> config_pb2.MetricThreshold:
    return config_pb2.MetricThreshold(value_threshold=config_pb2.GenericValueThreshold(**bounds))


def _change(name: str) -> str:
    return f"{tfma_base.COUNTED_CHANGE}/{name}"


def _change_threshold(bound: float, direction: str) -> config_pb2.MetricThreshold:
    threshold = config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.Value(direction), absolute={"value": bound}
    )
    return config_pb2.MetricThreshold(change_threshold=threshold)
