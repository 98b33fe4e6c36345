"""An exported model in this process behind the interface of `serving.client`, so commands take either."""

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
    """A SavedModel that answers as a served one does."""

    def __init__(self, predictor: Predictor, limits: InstanceLimits = InstanceLimits()) -> None:  # noqa: B008
        """Takes a model, and which instances are wanted. Raises UsageError for limits and a model without instances."""
        self._predictor = predictor
        self._version = version_number(predictor.directory)
        self._description = Description.from_details(predictor.metadata["model"], self._version, predictor.metadata)
        limits.check(self._description)
        self._instance_limits = limits
        max_pixels = predictor.metadata.get("max_pixels", sys.maxsize)
        self._limits = Limits(max_side=sys.maxsize, min_side=1, max_pixels=max_pixels)

    def describe(self) -> Description:
        """Returns what the model says of itself."""
        return self._description

    def segment_all(self, images: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Result]]:
        """Yields a result for each encoded image, in order, under the key it came with."""
        for keys, batch in batching.requests(images, _BATCH, _BATCH_BYTES):
            faults = [_fault(data, self._limits) for data in batch]
            readable = [data for data, found in zip(batch, faults, strict=True) if found is None]
            answers = iter(self._segment(readable))
            for key, found in zip(keys, faults, strict=True):
                yield key, next(answers) if found is None else Refused(found)

    def _segment(self, images: list[bytes]) -> list[Answer]:
        if not images:
            return []
        started, about = time.monotonic(), self._description
        answered: dict[str, Any] = {"legend": about.class_map, "model": about.model, "version": about.version}
        if about.finds_instances:
            found = self._predictor.find_instances(images, self._instance_limits.inputs(len(images)))
            answered["seconds"] = time.monotonic() - started
            return [InstanceSegmentation.of_outputs(outputs, **answered) for outputs in found]
        predictions = self._predictor.predict(images)
        answered["seconds"] = time.monotonic() - started
        return [
            Segmentation(
                class_map=prediction.mask,
                class_share=dict(zip(about.class_map.names, prediction.class_share.tolist(), strict=True)),
                confidence=prediction.confidence,
                depth_png=prediction.depth_png,
                **answered,
            )
            for prediction in predictions
        ]


def _fault(data: bytes, limits: Limits) -> str | None:
    """Returns what is wrong with an encoded image, None where it is a sound PNG or JPEG that the model takes."""
    try:
        decode(data, limits, ("PNG", "JPEG"))
    except BadFileError as error:
        return f"found {error.found}, expected {error.expected}"
    return None
