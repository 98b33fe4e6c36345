"""Typed results of a model: segmentations, instances, descriptions and version states."""

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
# tensorflow_serving/apis/get_model_status.proto
_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}


@dataclasses.dataclass(frozen=True)
class Description:
    """A model's description of itself.

    Attributes:
        model: name of the model.
        version: its version; None for a local model outside a numbered folder.
        class_map: names, display colours and the ignored class.
        input_size: height and width of the network's input, in pixels.
        metrics: evaluation metrics by name; empty if the model contains none.
        details: the whole description, as plain JSON types.
    """

    model: str
    version: int | None
    class_map: ClassMap
    input_size: tuple[int, int]
    metrics: dict[str, float]
    details: dict[str, Any]

    @classmethod
    def from_details(cls, model: str, version: int | None, details: dict[str, Any]) -> Description:
        """Parses the JSON description inside a model. Raises ValueError if classes or input size are missing."""
        try:
            height, width = details["input_size"]
            class_map = ClassMap.from_dict(details["class_map"])
            metrics = dict(details.get("metrics") or {})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no class_map and input_size: {error!r}") from None
        return cls(model, version, class_map, (height, width), metrics, details)

    @property
    def finds_instances(self) -> bool:
        """Whether it is an instance model: masks of single objects instead of a class per pixel."""
        return self.details.get("task") == "instance"

    @property
    def estimates_depth(self) -> bool:
        """Whether it also returns a depth map."""
        return self.details.get("depth_scale") is not None


@dataclasses.dataclass(frozen=True)
class InstanceLimits:
    """Limits on the instances per image. None, and any looser value, keeps the limit of the model.

    Attributes:
        score_threshold: return only instances with a higher score, 0 to 1; at least the model's `model.min_score`.
        max_instances: return only the best instances; at most the model's `model.max_instances`.
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
        """Returns the inputs of the signature `find_instances` besides `count` images: one value per image."""
        limit = np.iinfo(np.int64).max if self.max_instances is None else self.max_instances
        return {
            features.SCORE_THRESHOLD: np.full(count, self.score_threshold or 0, np.float32),
            features.MAX_INSTANCES: np.full(count, limit, np.int64),
        }

    def check(self, description: Description) -> None:
        """Raises UsageError if limits are set for a semantic model."""
        if self and not description.finds_instances:
            raise UsageError(
                f"score_threshold, max_instances: found {description.model}, a model of the task semantic; expected a "
                "model of the task instance. Leave out both"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Answer:
    """The origin of a result.

    Attributes:
        legend: the model's classes with their display colours.
        model: name of the model that answered.
        version: its version; None for a local model outside a numbered folder.
        seconds: time of the whole batch, including retries.
    """

    legend: ClassMap
    model: str
    version: int | None
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation(_Answer):
    """The semantic segmentation of one image.

    Attributes:
        class_map: class indices at the image's own size, uint8 [H, W].
        class_share: fraction of the pixels by class name, 0 to 1.
        confidence: probability of the predicted class, mean over the pixels, 0 to 1.
        depth_png: the depth map as a 16-bit grey PNG at the image's own size; None without depth.
    """

    class_map: np.ndarray
    class_share: dict[str, float]
    confidence: float
    depth_png: bytes | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstanceSegmentation(_Answer):
    """The N instances of one image, highest score first.

    Attributes:
        boxes: (y_min, x_min, y_max, x_max) in pixels of the image's own size, exclusive maximum, float32 [N, 4].
        classes: class indices in `legend`, int64 [N].
        scores: float32 [N], 0 to 1.
        mask_pngs: the masks as grey PNGs of 0 and 255 at the image's own size.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    mask_pngs: tuple[bytes, ...]

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any], **answered: Any) -> InstanceSegmentation:
        """Returns the instances of one image from its outputs, padded as in `components/features.py`.

        `answered` are the attributes of the result's origin.
        """
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
        """The decoded masks, bool [N, H, W]; [0, 0, 0] without instances."""
        masks = [decode_mask_png(data) > 0 for data in self.mask_pngs]
        return np.stack(masks) if masks else np.zeros((0, 0, 0), bool)

    @property
    def names(self) -> list[str]:
        """The class name of each instance."""
        return [self.legend.names[index] for index in self.classes]

    @property
    def class_count(self) -> dict[str, int]:
        """The number of instances by class name, without classes that do not occur."""
        names = self.names
        return {name: names.count(name) for name in self.legend.names if name in names}

    @functools.cached_property
    def class_share(self) -> dict[str, float]:
        """The fraction of the pixels inside instances, by class name. Classes may overlap."""
        covered = {name: self.masks[self.classes == index].any(axis=0) for index, name in enumerate(self.legend.names)}
        return {name: float(mask.mean()) if mask.size else 0.0 for name, mask in covered.items()}

    @property
    def confidence(self) -> float:
        """The mean score; 0 without instances."""
        return float(self.scores.mean()) if len(self.scores) else 0.0


@dataclasses.dataclass(frozen=True)
class Refused:
    """An image that the model could not read, with its error message."""

    reason: str


Answer = Segmentation | InstanceSegmentation
Result = Answer | Refused


class Segmenter(Protocol):
    """A model behind a server or in this process."""

    def describe(self) -> Description:
        """Returns the model's description."""

    def segment_all(self, images: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Result]]:
        """Yields the key and the result of each encoded image, in order."""


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """The state of one version on a server.

    Attributes:
        version: the version.
        state: TensorFlow Serving's START, LOADING, AVAILABLE, UNLOADING or END, else UNKNOWN.
        error: why it failed to load; empty if it did not.
    """

    version: int
    state: str
    error: str = ""

    @classmethod
    def from_proto(cls, message: Any) -> VersionStatus:
        """Reads a `ModelVersionStatus`."""
        return cls(message.version, _STATES.get(message.state, "UNKNOWN"), message.status.error_message)

    @property
    def available(self) -> bool:
        """Whether the version answers requests."""
        return self.state == "AVAILABLE"
