"""An exported model in this process behind the interface of `serving.client`, so commands take either."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

from components.dataset.encoded import BadFileError, Limits, decode
from components.pusher.versions import version_number
from serving.client import batching
from serving.client.results import Description, Key, Refused, Result, Segmentation
from serving.predictor import Predictor

_BATCH = 8
_BATCH_BYTES = 64 << 20


class LocalModel:
    """A SavedModel that answers as a served one does."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._version = version_number(predictor.directory)
        max_pixels = predictor.metadata.get("max_pixels", sys.maxsize)
        self._limits = Limits(max_side=sys.maxsize, min_side=1, max_pixels=max_pixels)

    def describe(self) -> Description:
        """Returns what the model says of itself."""
        metadata = self._predictor.metadata
        return Description.from_details(metadata["model"], self._version, metadata)

    def segment_all(self, images: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Result]]:
        """Yields a result for each encoded image, in order, under the key it came with."""
        for keys, batch in batching.requests(images, _BATCH, _BATCH_BYTES):
            faults = [_fault(data, self._limits) for data in batch]
            readable = [data for data, found in zip(batch, faults, strict=True) if found is None]
            answers = iter(self._segment(readable))
            for key, found in zip(keys, faults, strict=True):
                yield key, next(answers) if found is None else Refused(found)

    def _segment(self, images: list[bytes]) -> list[Segmentation]:
        started = time.monotonic()
        predictions = self._predictor.predict(images) if images else []
        seconds = time.monotonic() - started
        legend = self._predictor.class_map
        return [
            Segmentation(
                class_map=prediction.mask,
                class_share=dict(zip(legend.names, prediction.class_share.tolist(), strict=True)),
                confidence=prediction.confidence,
                legend=legend,
                model=self._predictor.metadata["model"],
                version=self._version,
                seconds=seconds,
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
