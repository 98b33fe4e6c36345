"""The nodes that look up earlier models: what a new model is compared with, and what a training starts from."""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx

from components.baseline.strategy import ServedBaseline
from components.baseline.warm_start import LastVersionStart
from components.class_map import ClassMap
from pipeline.configuration.config import RunConfig
from pipeline.history.related import BASELINE

_START = "StartResolver"
# They only look up; there is nothing of them to cache.
RESOLVERS = (BASELINE, _START)


def baseline(config: RunConfig, candidate: Any, examples: Any, own_strategy: bool) -> tfx.dsl.Resolver:
    """Returns the node that finds the served model, or a better one before it, of the project and the classes.

    Args:
        config: every setting of the run.
        candidate: the channel of the model to judge.
        examples: the channel of the raw examples to judge it on.
        own_strategy: whether the platform runs a strategy of our own; TFX's takes the last blessed model of any kind.
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
    """Returns the node that finds the last version that learned from other examples than this run's.

    Args:
        config: every setting of the run.
        class_map: the classes of the data set.
        examples: the channel of the examples to train on.
    """
    return tfx.dsl.Resolver(
        strategy_class=LastVersionStart,
        config={"model_settings": config.model.model_dump_json(), "class_names": list(class_map.names)},
        **_blessed_models(),
        examples=examples,
    ).with_id(_START)


def _blessed_models() -> dict[str, tfx.dsl.Channel]:
    """Returns the channels of all models and blessings of the project.

    TFX limits a channel without a producer to the context of its pipeline, which has the project's name
    (`_compile_channel_pb` in tfx/dsl/compiler/node_inputs_compiler.py, 1.16 and 1.21).
    """
    return {
        "model": tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        "model_blessing": tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    }
