"""Picks the model whose weights a training starts from: the last version that learned from other data.

A model that was trained on the very same examples is passed over. An unchanged pipeline therefore
finds the same start again and its Trainer comes from the cache; only new data moves the start on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tfx import v1 as tfx
from tfx.v1.dsl.io import fileio

from components.artifact_files import read_model_metadata, weights_beside
from components.baseline.versions import good_versions, read_for, saved_model
from components.weight_sources import from_pytorch

MODEL = "model"
MODEL_BLESSING = "model_blessing"
EXAMPLES = "examples"

Artifacts = dict[str, list[Any]]

# Settings of a model that its weights do not depend on.
_WITHOUT_WEIGHTS = ("encoder_weights", "dropout", "test_time_flip", "test_time_scales")


class LastVersionStart(tfx.dsl.experimental.ResolverStrategy):
    """Strategy of a `tfx.dsl.Resolver` with the channels `model`, `model_blessing` and `examples`.

    Resolves `model` to the version that was pushed last, of those that are blessed, not withdrawn and of the same
    network and classes, or to nothing; the others, which it only compares with, to nothing.

    Args:
        model_settings: `ModelSettings` of the network to train, as JSON; TFX has no null in what it passes on.
        class_names: names of the classes, in index order.
    """

    def __init__(self, model_settings: str, class_names: Sequence[str]) -> None:
        self._shape = _shape(json.loads(model_settings))
        self._class_names = list(class_names)

    def resolve_artifacts(self, store: Any, input_dict: Artifacts) -> Artifacts:
        """Returns the artifacts that the resolver passes on.

        Args:
            store: the metadata store, asked for the version of a model and what it was trained on.
            input_dict: all models and blessings of the project, and the examples to train on.

        Raises:
            SegpipeError: a record of withdrawn versions cannot be read.
        """
        examples = {artifact.id for artifact in input_dict[EXAMPLES]}
        for version in good_versions(store, input_dict[MODEL], input_dict[MODEL_BLESSING]):
            if not examples & _learned_from(store, version.model.id) and self._fits(version.model):
                return {MODEL: [version.model], MODEL_BLESSING: [], EXAMPLES: []}
        return {MODEL: [], MODEL_BLESSING: [], EXAMPLES: []}

    def _fits(self, model: Any) -> bool:
        """Tells whether a model's weights are there and fit the network; a model without them is no start."""
        directory = saved_model(model)
        try:
            description = read_model_metadata(directory)
            shape, classes = _shape(description["model_settings"]), description["class_map"]["names"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            logging.getLogger(__name__).warning("%s: not taken as a start: %s", directory, error)
            return False
        return shape == self._shape and classes == self._class_names and fileio.exists(weights_beside(directory))


def _learned_from(store: Any, model_id: int) -> set[int]:
    """Returns the ids of what the executions behind a model read, and behind the one that an optimised model is of."""
    read = read_for(store, {model_id})
    return read | read_for(store, read)


def _shape(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what weights are for: the layers, their padding, and the pixels; pretrained encoders have theirs."""
    layers = {name: value for name, value in settings.items() if name not in _WITHOUT_WEIGHTS}
    weights = settings.get("encoder_weights", "none")
    return {**layers, "pretrained_pixels": weights != "none", "from_pytorch": from_pytorch(weights)}
