"""What a model says of an image, and of itself, as typed values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np

from components.class_map import ClassMap

Key = TypeVar("Key")


@dataclasses.dataclass(frozen=True)
class Description:
    """What a model says of itself.

    Attributes:
        model: name of the model.
        version: its version, None for a local model that is not in a numbered folder.
        class_map: names, display colours and the ignored class.
        input_size: height and width that the network sees, in pixels.
        metrics: scores of its evaluation by name, empty where the model carries none.
        details: everything it says, as plain JSON types.
    """

    model: str
    version: int | None
    class_map: ClassMap
    input_size: tuple[int, int]
    metrics: dict[str, float]
    details: dict[str, Any]

    @classmethod
    def from_details(cls, model: str, version: int | None, details: dict[str, Any]) -> Description:
        """Reads the JSON that travels inside a model. Raises ValueError where classes or input size are missing."""
        try:
            height, width = details["input_size"]
            class_map = ClassMap.from_dict(details["class_map"])
            metrics = dict(details.get("metrics") or {})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no class_map and input_size: {error!r}") from None
        return cls(model, version, class_map, (height, width), metrics, details)


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What a model says of one image.

    Attributes:
        class_map: class indices at the image's own size, uint8 [H, W].
        class_share: each class's share of the pixels by class name, 0 to 1.
        confidence: mean over pixels of the winning class's probability, 0 to 1.
        legend: the model's classes with their display colours.
        model: name of the model that answered.
        version: its version, None for a local model that is not in a numbered folder.
        seconds: from the question to the answer, for the whole batch, retries included.
    """

    class_map: np.ndarray
    class_share: dict[str, float]
    confidence: float
    legend: ClassMap
    model: str
    version: int | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Refused:
    """An image that the model could not read, with the reason in its words."""

    reason: str


Result = Segmentation | Refused


class Segmenter(Protocol):
    """A model wherever it runs: behind a server or in this process."""

    def describe(self) -> Description:
        """Returns what the model says of itself."""

    def segment_all(self, images: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Result]]:
        """Yields a result for each encoded image, in order, under the key it came with."""


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """State of one version on the server, in TensorFlow Serving's words.

    Attributes:
        version: the version.
        state: START, LOADING, AVAILABLE, UNLOADING, END or UNKNOWN.
        error: why it does not load, empty where all is well.
    """

    version: int
    state: str
    error: str
