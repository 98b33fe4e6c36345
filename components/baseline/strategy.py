"""Picks the baseline of a candidate: the served version, or a better one before it.

A candidate is never its own baseline. So an unchanged pipeline finds the same baseline again, and reuses the cached
evaluation.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import Any

from tfx import v1 as tfx

from components.artifact_files import read_model_metadata
from components.baseline.versions import PushedVersion, good_versions, saved_model
from components.dataset.encoded import MAX_PIXELS
from components.example_gen.artifacts import split_fingerprint
from components.metrics.scores import task_scores

MODEL = "model"
MODEL_BLESSING = "model_blessing"
SERVED = "served"
CANDIDATE = "candidate"
EXAMPLES = "examples"

Artifacts = dict[str, list[Any]]


class ServedBaseline(tfx.dsl.experimental.ResolverStrategy):
    """Strategy of a `tfx.dsl.Resolver` with the channels `model`, `model_blessing`, `served`, `candidate`, `examples`.

    Resolves `model` and its blessing to the last pushed version that is blessed, not withdrawn, and comparable with the
    candidate; architectures may differ. If one of the last `best_of` versions has a higher recorded score on the same
    gate data, it is the baseline instead, and `served` is the last pushed one. This keeps small drops that the gate
    tolerates from adding up. All other channels resolve to nothing.

    A version is comparable if it has the candidate's task and classes and accepts images as large as the candidate,
    because the evaluation runs both models.

    Args:
        gate_split: the split of the gate.
        best_of: number of versions to consider; 1 for only the last.
    """

    def __init__(self, gate_split: str, best_of: int) -> None:
        self._gate_split = gate_split
        self._best_of = best_of

    def resolve_artifacts(self, store: Any, input_dict: Artifacts) -> Artifacts:
        """Returns the resolved artifacts.

        Args:
            store: the metadata store, which knows the versions of models.
            input_dict: all models and blessings of the project, the run's candidate, and its raw examples.

        Raises:
            SegpipeError: a record of withdrawn versions cannot be read.
        """
        (candidate,), (examples,) = input_dict[CANDIDATE], input_dict[EXAMPLES]
        others = [model for model in input_dict[MODEL] if model.id != candidate.id]
        wanted = read_model_metadata(saved_model(candidate))
        versions = (
            version
            for version in good_versions(store, others, input_dict[MODEL_BLESSING])
            if _is_comparable(saved_model(version.model), wanted)
        )
        last = list(itertools.islice(versions, self._best_of))
        nothing: Artifacts = {key: [] for key in input_dict}
        if not last:
            return nothing
        baseline = _best(last, split_fingerprint(examples, self._gate_split))
        served = [] if baseline is last[0] else [last[0].model]
        return {**nothing, MODEL: [baseline.model], MODEL_BLESSING: [baseline.blessing], SERVED: served}


def _best(versions: list[PushedVersion], gate_data: str) -> PushedVersion:
    """Returns the version with the highest score on the gate data; the first if its own score is unknown."""
    scores = [_recorded_score(version, gate_data) for version in versions]
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    return versions[-max(known)[1]] if scores[0] is not None else versions[0]


def _recorded_score(version: PushedVersion, gate_data: str) -> float | None:
    """Returns a version's recorded main score on the data of a fingerprint; None if it has no such score."""
    try:
        description = read_model_metadata(version.archive)
        same = gate_data and description["evaluated_on"]["fingerprint"] == gate_data
        metrics = description["metrics"]
        return float(metrics[task_scores(metrics).main]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_comparable(directory: str, wanted: Mapping[str, Any]) -> bool:
    """Tells whether a model has the task and classes of the metadata `wanted`, and accepts images as large.

    A model whose files are missing or unreadable cannot be evaluated, so it is not comparable.
    """
    try:
        description = read_model_metadata(directory)
        kinds = [(each.get("task", "semantic"), each["class_map"]["names"]) for each in (description, wanted)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logging.getLogger(__name__).warning("%s: not taken as a baseline: %s", directory, error)
        return False
    if kinds[0] != kinds[1]:
        return False
    found, least = (each.get("max_pixels", MAX_PIXELS) for each in (description, wanted))
    if found < least:
        message = "%s: not taken as a baseline: it accepts %d pixels an image, the candidate %d"
        logging.getLogger(__name__).warning(message, directory, found, least)
    return found >= least
