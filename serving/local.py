"""An exported model in this process, with the interface of `serving.client`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from components.dataset.encoded import BadFileError, Limits, decode
from components.pusher.versions import version_number
from serving.client import batching
from serving.client.results import (
    Answer,
    Description,
    InstanceLimits,
    InstanceSegmentation,
    Key,
    Refused,
    Result,
    Segmentation,
)
from serving.predictor import Predictor

_BATCH = 8
_BATCH_BYTES = 64 << 20


class LocalModel:
    """A SavedModel with the interface of a served one."""

    def __init__(self, predictor: Predictor, limits: InstanceLimits = InstanceLimits()) -> None:  # noqa: B008
        """Takes a model and limits on its instances. Raises UsageError for limits on a semantic model."""
        self._predictor = predictor
        self._version = version_number(predictor.directory)
        self._description = Description.from_details(predictor.metadata["model"], self._version, predictor.metadata)
        limits.check(self._description)
        self._instance_limits = limits
        max_pixels = predictor.metadata.get("max_pixels", sys.maxsize)
        self._limits = Limits(max_side=sys.maxsize, min_side=1, max_pixels=max_pixels)

    def describe(self) -> Description:
        """Returns the model's metadata."""
        return self._description

    def segment_all(self, images: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Result]]:
        """Yields each key with the result for its encoded image, in order."""
        for keys, batch in batching.requests(images, _BATCH, _BATCH_BYTES):
            issues = [_issue(data, self._limits) for data in batch]
            readable = [data for data, issue in zip(batch, issues, strict=True) if issue is None]
            answers = iter(self._segment(readable))
            for key, issue in zip(keys, issues, strict=True):
                yield key, next(answers) if issue is None else Refused(issue)

    def _segment(self, images: list[bytes]) -> list[Answer]:
        if not images:
            return []
        started, description = time.monotonic(), self._description
        answered: dict[str, Any] = {
            "legend": description.class_map,
            "model": description.model,
            "version": description.version,
        }
        if description.finds_instances:
            found = self._predictor.find_instances(images, self._instance_limits.inputs(len(images)))
            answered["seconds"] = time.monotonic() - started
            return [InstanceSegmentation.of_outputs(outputs, **answered) for outputs in found]
        predictions = self._predictor.predict(images)
        answered["seconds"] = time.monotonic() - started
        return [
            Segmentation(
                class_map=prediction.mask,
                class_share=dict(zip(description.class_map.names, prediction.class_share.tolist(), strict=True)),
                confidence=prediction.confidence,
                depth_png=prediction.depth_png,
                **answered,
            )
            for prediction in predictions
        ]


def _issue(data: bytes, limits: Limits) -> str | None:
    """Returns the problem of an encoded image, or None if it is a valid PNG or JPEG within the limits."""
    try:
        decode(data, limits, ("PNG", "JPEG"))
    except BadFileError as error:
        return f"found {error.found}, expected {error.expected}"
    return None
