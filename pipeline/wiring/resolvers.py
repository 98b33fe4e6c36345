"""The nodes that find earlier models: the baseline of the evaluation, and the start of the training."""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx

from components.baseline.strategy import ServedBaseline
from components.baseline.warm_start import LastVersionStart
from components.class_map import ClassMap
from pipeline.configuration.config import RunConfig
from pipeline.history.related import BASELINE

_START = "StartResolver"
# They only query the metadata, so they are never cached.
RESOLVERS = (BASELINE, _START)


def baseline(config: RunConfig, candidate: Any, examples: Any, own_strategy: bool) -> tfx.dsl.Resolver:
    """Returns the node that finds the served model of the same project and classes, or a better earlier one.

    It compares models with the candidate on the raw examples. If the platform does not run our resolver strategy
    (`own_strategy`), TFX's strategy takes the last blessed model.
    """
    if not own_strategy:
        strategy = tfx.dsl.experimental.LatestBlessedModelStrategy
        return tfx.dsl.Resolver(strategy_class=strategy, **_blessed_models()).with_id(BASELINE)
    return tfx.dsl.Resolver(
        strategy_class=ServedBaseline,
        config={"gate_split": config.data.gate_split, "best_of": config.gate.best_of},
        **_blessed_models(),
        served=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        candidate=candidate,
        examples=examples,
    ).with_id(BASELINE)


def start(config: RunConfig, class_map: ClassMap, examples: Any) -> tfx.dsl.Resolver:
    """Returns the node that finds the last version that was trained on other examples than this run's."""
    return tfx.dsl.Resolver(
        strategy_class=LastVersionStart,
        config={"model_settings": config.model.model_dump_json(), "class_names": list(class_map.names)},
        **_blessed_models(),
        examples=examples,
    ).with_id(_START)


def _blessed_models() -> dict[str, tfx.dsl.Channel]:
    """Returns the channels of all models and blessings of the project.

    TFX limits a channel without a producer to the context of its pipeline, which has the name of the project
    (`_compile_channel_pb` in tfx/dsl/compiler/node_inputs_compiler.py, 1.16 and 1.21).
    """
    return {
        "model": tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        "model_blessing": tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    }
