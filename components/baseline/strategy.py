"""Picks the model that a candidate must not fall behind: the latest blessed one of its kind.

The candidate itself never is its own baseline. Running an unchanged pipeline again therefore finds
the same baseline as before, and the cached evaluation still fits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from tfx import v1 as tfx

# Not part of tfx.v1: the names under which the Evaluator marks a blessing, and where a Trainer's model lies.
from tfx.components.evaluator import constants
from tfx.utils import path_utils

from components.artifact_files import read_model_metadata

MODEL = "model"
MODEL_BLESSING = "model_blessing"
CANDIDATE = "candidate"

Artifacts = dict[str, list[Any]]


class LatestBlessedBaseline(tfx.dsl.experimental.ResolverStrategy):
    """Strategy of a `tfx.dsl.Resolver` with the channels `model`, `model_blessing` and `candidate`.

    Resolves `model` and `model_blessing` to one artifact each, or to none where no model qualifies;
    `candidate`, which it only compares with, to none.

    Args:
        model_name: name of the architecture that a baseline must have, as in `segpipe.json`.
        class_names: names of the classes, in index order, that a baseline must have.
    """

    def __init__(self, model_name: str, class_names: Sequence[str]) -> None:
        self._model_name = model_name
        self._class_names = list(class_names)

    def resolve_artifacts(self, store: Any, input_dict: Artifacts) -> Artifacts:
        """Returns the artifacts that the resolver passes on.

        Args:
            store: the metadata store, not used.
            input_dict: all models and blessings of the pipeline, and the run's candidate.
        """
        candidates = {model.id for model in input_dict[CANDIDATE]}
        blessings = {
            blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
            for blessing in input_dict[MODEL_BLESSING]
            if blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == constants.BLESSED_VALUE
        }
        for model in sorted(input_dict[MODEL], key=lambda model: model.id, reverse=True):
            if model.id in blessings and model.id not in candidates and self._is_comparable(model):
                return {MODEL: [model], MODEL_BLESSING: [blessings[model.id]], CANDIDATE: []}
        return {MODEL: [], MODEL_BLESSING: [], CANDIDATE: []}

    def _is_comparable(self, model: Any) -> bool:
        """Tells whether a model has the architecture and the classes that are asked for.

        A model whose files are gone or unreadable cannot be evaluated, so it is none.
        """
        directory = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
        try:
            description = read_model_metadata(directory)
            name, classes = description["model"], description["class_map"]["names"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            logging.getLogger(__name__).warning("%s: not taken as a baseline: %s", directory, error)
            return False
        return name == self._model_name and classes == self._class_names
