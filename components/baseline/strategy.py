"""Picks the model that a candidate must not fall behind: the latest blessed one of its kind.

The candidate itself never is its own baseline. Running an unchanged pipeline again therefore finds
the same baseline as before, and the cached evaluation still fits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tfx import v1 as tfx

# Not part of tfx.v1: the names under which the Evaluator marks a blessing, and where a Trainer's model lies.
from tfx.components.evaluator import constants
from tfx.utils import path_utils

from components.artifact_files import read_model_metadata
from components.dataset.encoded import MAX_PIXELS

MODEL = "model"
MODEL_BLESSING = "model_blessing"
CANDIDATE = "candidate"

Artifacts = dict[str, list[Any]]


class LatestBlessedBaseline(tfx.dsl.experimental.ResolverStrategy):
    """Strategy of a `tfx.dsl.Resolver` with the channels `model`, `model_blessing` and `candidate`.

    Resolves `model` and `model_blessing` to one artifact each, or to none where no model qualifies;
    `candidate`, which it only compares with, to none. A baseline must accept images as large as the candidate
    does, or the evaluation, which asks both, would end at the first one that is too large for it.

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
        max_pixels = max(
            (_max_pixels(read_model_metadata(_directory(model))) for model in input_dict[CANDIDATE]), default=0
        )
        for model in sorted(input_dict[MODEL], key=lambda model: model.id, reverse=True):
            if model.id in blessings and model.id not in candidates and self._is_comparable(model, max_pixels):
                return {MODEL: [model], MODEL_BLESSING: [blessings[model.id]], CANDIDATE: []}
        return {MODEL: [], MODEL_BLESSING: [], CANDIDATE: []}

    def _is_comparable(self, model: Any, max_pixels: int) -> bool:
        """Tells whether a model has the architecture and the classes that are asked for, and takes the same images.

        A model whose files are gone or unreadable cannot be evaluated, so it is none.
        """
        directory = _directory(model)
        try:
            description = read_model_metadata(directory)
            name, classes = description["model"], description["class_map"]["names"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            logging.getLogger(__name__).warning("%s: not taken as a baseline: %s", directory, error)
            return False
        if name != self._model_name or classes != self._class_names:
            return False
        if _max_pixels(description) < max_pixels:
            message = "%s: not taken as a baseline: it accepts %d pixels an image, the candidate %d"
            logging.getLogger(__name__).warning(message, directory, _max_pixels(description), max_pixels)
            return False
        return True


def _directory(model: Any) -> str:
    """Returns where a Model artifact keeps its SavedModel."""
    return path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))


def _max_pixels(description: Mapping[str, Any]) -> int:
    """Returns the height times width of the largest image that a model accepts."""
    return description.get("max_pixels", MAX_PIXELS)
