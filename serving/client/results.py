"""What a model says of an image, and of itself, as typed values."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from components import features
from components.class_map import ClassMap
from components.errors import UsageError
from serving.predictor import decode_mask_png

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

    @property
    def finds_instances(self) -> bool:
        """Whether it finds the masks of single objects, and not a class for each pixel."""
        return self.details.get("task") == "instance"

    @property
    def estimates_depth(self) -> bool:
        """Whether it answers with a depth map too."""
        return self.details.get("depth_scale") is not None


@dataclasses.dataclass(frozen=True)
class InstanceLimits:
    """Limits on the instances of an image; None keeps the limit of the model.

    Attributes:
        score_threshold: instances need a higher score, 0 to 1. A model has a least score and a most of its own
            (`model.min_score`, `model.max_instances`), beyond which this cannot go.
        max_instances: most instances of an image, the best ones.
    """

    score_threshold: float | None = None
    max_instances: int | None = None

    def __post_init__(self) -> None:
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise UsageError(f"score_threshold: found {self.score_threshold}, expected 0 to 1")
        if self.max_instances is not None and self.max_instances < 1:
            raise UsageError(f"max_instances: found {self.max_instances}, expected at least 1")

    def __bool__(self) -> bool:
        return self != InstanceLimits()

    def inputs(self, count: int) -> dict[str, np.ndarray]:
        """Returns the inputs of the signature `find_instances` beside `count` images, one value an image."""
        most = np.iinfo(np.int64).max if self.max_instances is None else self.max_instances
        return {
            features.SCORE_THRESHOLD: np.full(count, self.score_threshold or 0, np.float32),
            features.MAX_INSTANCES: np.full(count, most, np.int64),
        }

    def check(self, description: Description) -> None:
        """Raises UsageError if there are limits for a model without instances."""
        if self and not description.finds_instances:
            raise UsageError(
                f"score_threshold and max_instances: found one of them for {description.model}, a model of the task "
                "semantic; expected a model of the task instance. Leave both out"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Answer:
    """Who answered.

    Attributes:
        legend: the model's classes with their display colours.
        model: name of the model that answered.
        version: its version, None for a local model that is not in a numbered folder.
        seconds: from the question to the answer, for the whole batch, retries included.
    """

    legend: ClassMap
    model: str
    version: int | None
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation(_Answer):
    """What a model says of the pixels of one image, and who answered.

    Attributes:
        class_map: class indices at the image's own size, uint8 [H, W].
        class_share: each class's share of the pixels by class name, 0 to 1.
        confidence: mean over pixels of the winning class's probability, 0 to 1.
        depth_png: the depth map as a 16-bit grey PNG at the image's own size; None without depth.
    """

    class_map: np.ndarray
    class_share: dict[str, float]
    confidence: float
    depth_png: bytes | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstanceSegmentation(_Answer):
    """The N instances that a model found in one image, the highest score first, and who answered.

    Attributes:
        boxes: (y_min, x_min, y_max, x_max) in pixels of the image's own size, exclusive maximum, float32 [N, 4].
        classes: index of each one's class in `legend`, int64 [N].
        scores: float32 [N], 0 to 1.
        mask_pngs: each mask as an encoded grey PNG of 0 and 255 at the image's own size.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    mask_pngs: tuple[bytes, ...]

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any], **answered: Any) -> InstanceSegmentation:
        """Reads the outputs of one image by name, padded as `components/features.py` says; `answered`: by whom."""
        count = np.count_nonzero(outputs[features.SCORES])
        return cls(
            boxes=outputs[features.BOXES][:count],
            classes=outputs[features.CLASSES][:count],
            scores=outputs[features.SCORES][:count],
            mask_pngs=tuple(outputs[features.INSTANCE_PNG][:count]),
            **answered,
        )

    @functools.cached_property
    def masks(self) -> np.ndarray:
        """The decoded masks, bool [N, H, W]; [0, 0, 0] without an instance."""
        masks = [decode_mask_png(data) > 0 for data in self.mask_pngs]
        return np.stack(masks) if masks else np.zeros((0, 0, 0), bool)

    @property
    def names(self) -> list[str]:
        """The class name of each instance."""
        return [self.legend.names[index] for index in self.classes]

    @property
    def class_count(self) -> dict[str, int]:
        """The number of instances by class name, of the classes that occur."""
        names = self.names
        return {name: names.count(name) for name in self.legend.names if name in names}

    @functools.cached_property
    def class_share(self) -> dict[str, float]:
        """The fraction of the pixels that lie in an instance of a class, by class name; the classes may overlap."""
        covered = {name: self.masks[self.classes == index].any(axis=0) for index, name in enumerate(self.legend.names)}
        return {name: float(mask.mean()) if mask.size else 0.0 for name, mask in covered.items()}

    @property
    def confidence(self) -> float:
        """The mean score, 0 without an instance."""
        return float(self.scores.mean()) if len(self.scores) else 0.0


@dataclasses.dataclass(frozen=True)
class Refused:
    """An image that the model could not read, with the reason in its words."""

    reason: str


Answer = Segmentation | InstanceSegmentation
Result = Answer | Refused


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
