"""Builds the configuration of the pipeline's Evaluator: model signature, metrics and thresholds.

The same configuration serves with and without a baseline. TFX adds the baseline's model if there is one, and drops the
bounds on a change if not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tensorflow_model_analysis.proto import config_pb2

from components import features
from components.class_map import ClassMap
from components.metrics import scores, tfma_base, tfma_depth, tfma_instances, tfma_metrics
from components.metrics.settings import GateSettings

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
        selection_split: the split that chose the epoch, if examples of it are evaluated beside those that the gate
            judges; empty if the gate judges all examples.
        things: names of the classes that have instances, for the task instance; empty for the task semantic.
        depth_scale: of a model that estimates depth, value of a depth map at a distance of 1 metre.

    Raises:
        UsageError: the gate names a class that is unknown or not scored.
    """
    gate.check_classes(class_map, things)
    config = json.dumps(
        {
            "class_map": class_map.to_json(),
            "things": list(things),
            "significant_drops": gate.significant_drops,
            "depth_scale": depth_scale,
            "selection_split": selection_split,
            "code": code_hash,
        },
        sort_keys=True,
    )
    return config_pb2.EvalConfig(
        # A nameless model spec is what TFX needs to add the baseline's by itself.
        model_specs=[
            config_pb2.ModelSpec(model_type="tf_generic", signature_name=SIGNATURE, label_key=features.MASK),
        ],
        slicing_specs=[config_pb2.SlicingSpec()],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(class_name=metric.__name__, module=metric.__module__, config=config)
                    for module in (tfma_instances if things else tfma_metrics, *([tfma_depth] if depth_scale else []))
                    for metric in module.METRIC_CLASSES
                ],
                thresholds={
                    **_thresholds(gate, class_map.scored_names, things),
                    **(_depth_thresholds(gate) if depth_scale else {}),
                },
            )
        ],
    )


def _thresholds(
    gate: GateSettings, scored_names: Sequence[str], things: Sequence[str]
) -> dict[str, config_pb2.MetricThreshold]:
    """Returns the gate's bounds by metric name."""
    task = scores.INSTANCE if things else scores.SEMANTIC
    bounds = {task.main: gate.min_mask_ap if things else gate.min_mean_iou}
    drops = {task.main: gate.max_mean_drop}
    for name, bound in (gate.min_class_ap if things else gate.min_class_iou).items():
        bounds[scores.metric_name(task.by_class, name)] = bound
    for name in things or scored_names:
        drops[scores.metric_name(task.by_class, name)] = gate.max_class_drop
    return {
        **{name: config_pb2.MetricThreshold(value_threshold=_at_least(bound)) for name, bound in bounds.items()},
        **{
            f"{tfma_base.COUNTED_CHANGE}/{name}": config_pb2.MetricThreshold(change_threshold=_loses_at_most(drop))
            for name, drop in drops.items()
        },
    }


def _depth_thresholds(gate: GateSettings) -> dict[str, config_pb2.MetricThreshold]:
    """Returns the gate's bounds on the error of depth by metric name."""
    most = config_pb2.GenericValueThreshold(upper_bound={"value": gate.max_abs_rel})
    rise = config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.LOWER_IS_BETTER, absolute={"value": gate.max_abs_rel_rise}
    )
    error = scores.DEPTH[0]
    return {
        error: config_pb2.MetricThreshold(value_threshold=most),
        f"{tfma_base.COUNTED_CHANGE}/{error}": config_pb2.MetricThreshold(change_threshold=rise),
    }


def _at_least(bound: float) -> config_pb2.GenericValueThreshold:
    return config_pb2.GenericValueThreshold(lower_bound={"value": bound})


def _loses_at_most(drop: float) -> config_pb2.GenericChangeThreshold:
    return config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -drop}
    )
