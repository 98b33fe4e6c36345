"""Picks the model whose weights a training starts from: the last version that was trained on other data.

Skips models that were trained on the same examples. So an unchanged pipeline finds the same start again and reuses its
cached Trainer; only new data changes the start.
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

# Model settings that do not affect the weights.
_WITHOUT_WEIGHTS = ("encoder_weights", "dropout", "test_time_flip", "test_time_scales")


class LastVersionStart(tfx.dsl.experimental.ResolverStrategy):
    """Strategy of a `tfx.dsl.Resolver` with the channels `model`, `model_blessing` and `examples`.

    Resolves `model` to the last pushed version that is blessed, not withdrawn, and of the same network and classes, or
    to nothing. The other channels, which it only reads, resolve to nothing.

    Args:
        model_settings: `ModelSettings` of the network to train, as JSON, because TFX cannot pass null.
        class_names: names of the classes, in index order.
    """

    def __init__(self, model_settings: str, class_names: Sequence[str]) -> None:
        self._shape = _shape(json.loads(model_settings))
        self._class_names = list(class_names)

    def resolve_artifacts(self, store: Any, input_dict: Artifacts) -> Artifacts:
        """Returns the resolved artifacts.

        Args:
            store: the metadata store, which knows the versions of models and their training data.
            input_dict: all models and blessings of the project, and the examples to train on.

        Raises:
            SegpipeError: a record of withdrawn versions cannot be read.
        """
        examples = {artifact.id for artifact in input_dict[EXAMPLES]}
        for version in good_versions(store, input_dict[MODEL], input_dict[MODEL_BLESSING]):
            if not examples & _trained_on(store, version.model.id) and self._fits(version.model):
                return {MODEL: [version.model], MODEL_BLESSING: [], EXAMPLES: []}
        return {MODEL: [], MODEL_BLESSING: [], EXAMPLES: []}

    def _fits(self, model: Any) -> bool:
        """Tells whether a model's weights exist and fit the network."""
        directory = saved_model(model)
        try:
            description = read_model_metadata(directory)
            shape, classes = _shape(description["model_settings"]), description["class_map"]["names"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            logging.getLogger(__name__).warning("%s: not taken as a start: %s", directory, error)
            return False
        return shape == self._shape and classes == self._class_names and fileio.exists(weights_beside(directory))


def _trained_on(store: Any, model_id: int) -> set[int]:
    """Returns the ids of a model's inputs, and of their inputs: an optimised model was made from a trained one."""
    read = read_for(store, {model_id})
    return read | read_for(store, read)


def _shape(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that weights depend on: layers, padding, and the pixel scaling of a pretrained encoder."""
    layers = {name: value for name, value in settings.items() if name not in _WITHOUT_WEIGHTS}
    weights = settings.get("encoder_weights", "none")
    return {**layers, "pretrained_pixels": weights != "none", "from_pytorch": from_pytorch(weights)}
