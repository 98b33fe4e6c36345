"""Picks the model whose weights a training starts from: the latest blessed one that learned from other data.

A model that was trained on the very same examples is passed over. An unchanged pipeline therefore
finds the same start again and its Trainer comes from the cache; only new data moves the start on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx

# Not part of tfx.v1: the names under which the Evaluator marks a blessing, and where a Trainer's model lies.
from tfx.components.evaluator import constants
from tfx.utils import path_utils
from tfx.v1.dsl.io import fileio

from components.artifact_files import read_model_metadata, weights_beside

MODEL = "model"
MODEL_BLESSING = "model_blessing"
EXAMPLES = "examples"

Artifacts = dict[str, list[Any]]
_Event = metadata_store_pb2.Event

# Settings of a model that its weights do not depend on.
_WITHOUT_WEIGHTS = ("encoder_weights", "dropout", "test_time_flip", "test_time_scales")


class LatestBlessedStart(tfx.dsl.experimental.ResolverStrategy):
    """Strategy of a `tfx.dsl.Resolver` with the channels `model`, `model_blessing` and `examples`.

    Resolves `model` to one artifact, or to none where no model qualifies; the others, which it only
    compares with, to none.

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
            store: the metadata store, asked for what a model was trained on.
            input_dict: all models and blessings of the pipeline, and the examples to train on.
        """
        examples = {artifact.id for artifact in input_dict[EXAMPLES]}
        blessed = {
            blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY)
            for blessing in input_dict[MODEL_BLESSING]
            if blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == constants.BLESSED_VALUE
        }
        for model in sorted(input_dict[MODEL], key=lambda model: model.id, reverse=True):
            if model.id in blessed and not examples & _learned_from(store, model.id) and self._fits(model):
                return {MODEL: [model], MODEL_BLESSING: [], EXAMPLES: []}
        return {MODEL: [], MODEL_BLESSING: [], EXAMPLES: []}

    def _fits(self, model: Any) -> bool:
        """Tells whether a model's weights are there and fit the network; a model without them is no start."""
        directory = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
        try:
            description = read_model_metadata(directory)
            shape, classes = _shape(description["model_settings"]), description["class_map"]["names"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            logging.getLogger(__name__).warning("%s: not taken as a start: %s", directory, error)
            return False
        return shape == self._shape and classes == self._class_names and fileio.exists(weights_beside(directory))


def _learned_from(store: Any, model_id: int) -> set[int]:
    """Returns the ids of what the executions behind a model read, and behind the one that an optimised model is of."""
    read = _read_for(store, {model_id})
    return read | _read_for(store, read)


def _read_for(store: Any, artifact_ids: set[int]) -> set[int]:
    """Returns the ids of the artifacts that the executions behind some artifacts read."""
    written = store.get_events_by_artifact_ids(list(artifact_ids)) if artifact_ids else []
    executions = [event.execution_id for event in written if event.type == _Event.OUTPUT]
    read = store.get_events_by_execution_ids(executions) if executions else []
    return {event.artifact_id for event in read if event.type == _Event.INPUT}


def _shape(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what weights are for: the layers, and the pixels that go in; pretrained encoders have theirs."""
    layers = {name: value for name, value in settings.items() if name not in _WITHOUT_WEIGHTS}
    return {**layers, "pretrained_pixels": settings.get("encoder_weights", "none") != "none"}
