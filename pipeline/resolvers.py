"""The nodes that look up earlier models: what a new model is compared with, and what a training starts from."""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx

from components.baseline.strategy import LatestBlessedBaseline
from components.baseline.warm_start import LatestBlessedStart
from components.class_map import ClassMap
from pipeline.config import RunConfig

_BASELINE = "BaselineResolver"
_START = "StartResolver"
# They only look up; there is nothing of them to cache.
RESOLVERS = (_BASELINE, _START)


def baseline(config: RunConfig, class_map: ClassMap, candidate: Any, own_strategy: bool) -> tfx.dsl.Resolver:
    """Returns the node that finds the last blessed model of the candidate's kind.

    Args:
        config: every setting of the run.
        class_map: the classes of the data set.
        candidate: the channel of the model to judge.
        own_strategy: whether the platform runs a strategy of our own; with TFX's, models of any kind qualify.
    """
    if not own_strategy:
        strategy = tfx.dsl.experimental.LatestBlessedModelStrategy
        return tfx.dsl.Resolver(strategy_class=strategy, **_blessed_models()).with_id(_BASELINE)
    return tfx.dsl.Resolver(
        strategy_class=LatestBlessedBaseline,
        config={"model_name": config.model.name, "class_names": list(class_map.names)},
        **_blessed_models(),
        candidate=candidate,
    ).with_id(_BASELINE)


def start(config: RunConfig, class_map: ClassMap, examples: Any) -> tfx.dsl.Resolver:
    """Returns the node that finds the last blessed model that learned from other examples than this run's.

    Args:
        config: every setting of the run.
        class_map: the classes of the data set.
        examples: the channel of the examples to train on.
    """
    return tfx.dsl.Resolver(
        strategy_class=LatestBlessedStart,
        config={"model_settings": config.model.model_dump_json(), "class_names": list(class_map.names)},
        **_blessed_models(),
        examples=examples,
    ).with_id(_START)


def _blessed_models() -> dict[str, tfx.dsl.Channel]:
    """Returns the channels of all models and blessings."""
    return {
        "model": tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        "model_blessing": tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    }
