"""Compute COCO's average precision of instances, for masks and for boxes.

Source: pycocotools 2.0, cocoeval.py, `evaluateImg` and `accumulate`; tests/components/metrics/test_average_precision.py
compares with it. Two differences: the area of an instance is its number of pixels, not the area in COCO's files; and
detections with equal scores are ordered by a hash of their image, so the order of the images does not matter.

Each image is matched once, which gives `ImageMatches` of about 100 bytes a detection. The scores follow from them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from components.instances import Instances, boxes
from components.metrics.bootstrap import RESAMPLES, Resampled, poisson_weights
from components.metrics.detections import Detections
from components.metrics.scores import mean, metric_name

KINDS = ("mask", "box")
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# Minimum and maximum number of pixels of an instance.
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
# Per class and image; those with the highest scores count.
MAX_DETECTIONS = 100

# The area and the IoU thresholds of a score, by the end of its name.
_VARIANTS = {
    "": (0, slice(None)),
    "50": (0, slice(0, 1)),
    "75": (0, slice(5, 6)),
    **{f"_{area}": (place, slice(None)) for place, area in enumerate(AREAS) if place},
}
SCORES = tuple(f"{kind}_ap{variant}" for kind in KINDS for variant in _VARIANTS)

_FALSE_POSITIVE, _TRUE_POSITIVE, _IGNORED = range(3)
# Resamples scored at once, to limit the memory.
_BATCH = 8


@dataclasses.dataclass(frozen=True)
class ImageMatches:
    """The detections of one image matched with its instances.

    Attributes:
        image: hash of the image, which orders the images and determines their bootstrap weights.
        sequence: the image's sequence.
        truths: number of instances that count, int64 [areas, things].
        things: positions of the detections' classes among the things, int64 [N]; the highest score of a class first.
        scores: scores of the detections, float64 [N].
        outcomes: 0 for a false positive, 1 for a true positive, 2 for a detection that does not count,
            uint8 [N, kinds, areas, thresholds].
    """

    image: bytes
    sequence: str
    truths: np.ndarray
    things: np.ndarray
    scores: np.ndarray
    outcomes: np.ndarray


def match(
    truth: Instances, found: Detections, thing_indices: Sequence[int], image: bytes = b"", sequence: str = ""
) -> ImageMatches:
    """Matches the detections of one image with its instances.

    Args:
        truth: the instances.
        found: the detections, with masks of the same size.
        thing_indices: class indices of the things; other classes are ignored.
        image: the encoded image.
        sequence: the image's sequence.

    Raises:
        ValueError: masks of truth and detections differ in size.
    """
    if truth.masks.shape[1:] != found.masks.shape[1:]:
        raise ValueError(
            f"average precision: detected masks have shape {found.masks.shape[1:]}, true ones {truth.masks.shape[1:]}; "
            "the model must return each mask at its image's own size"
        )
    truths = np.zeros((len(AREAS), len(thing_indices)), np.int64)
    rows: list[np.ndarray] = []
    outcomes: list[np.ndarray] = []
    for place, index in enumerate(thing_indices):
        own = np.flatnonzero(truth.classes == index)
        detected = np.flatnonzero(found.classes == index)
        detected = detected[np.argsort(-found.scores[detected], kind="stable")][:MAX_DETECTIONS]
        masks, crowd = truth.masks[own], truth.crowd[own].astype(bool)
        pixels = _pixels(masks)
        ignored = crowd | ~_within_areas(pixels)
        truths[:, place] = np.count_nonzero(~ignored, axis=1)
        found_boxes = found.boxes[detected].astype(np.float64)
        found_masks = found.masks[detected]
        found_pixels = _pixels(found_masks)
        both = (
            _assign(mask_iou(found_masks, masks, crowd), crowd, ignored, found_pixels),
            _assign(box_iou(found_boxes, boxes(masks), crowd), crowd, ignored, _box_areas(found_boxes)),
        )
        rows.append(np.stack([np.full(len(detected), place), detected]))
        outcomes.append(np.stack(both, axis=1))
    things, detected = np.concatenate(rows, axis=1)
    return ImageMatches(
        image=hashlib.blake2b(image, digest_size=16).digest(),
        sequence=sequence,
        truths=truths,
        things=things,
        scores=found.scores[detected].astype(np.float64),
        outcomes=np.concatenate(outcomes),
    )


def mask_iou(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Returns the IoU of masks, float64 [D, T]; with a crowd, the fraction of the detection inside it.

    Source: pycocotools 2.0, maskApi.c, `rleIou`.

    Args:
        found: bool [D, H, W].
        truth: bool [T, H, W].
        crowd: bool [T].
    """
    common = np.zeros((len(found), len(truth)))
    for column, (mask, box) in enumerate(zip(truth, boxes(truth).astype(int), strict=True)):
        rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
        both = found[:, rows, columns] & mask[rows, columns]
        common[:, column] = np.count_nonzero(both, axis=(1, 2))
    return _iou(common, _pixels(found), _pixels(truth), crowd)


def box_iou(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Returns the IoU of boxes, float64 [D, T]; with a crowd, the fraction of the detection inside it.

    Source: pycocotools 2.0, maskApi.c, `bbIou`. Boxes as in `Detections`.
    """
    low = np.maximum(found[:, np.newaxis, :2], truth[:, :2])
    high = np.minimum(found[:, np.newaxis, 2:], truth[:, 2:])
    return _iou(np.maximum(high - low, 0).prod(axis=-1), _box_areas(found), _box_areas(truth), crowd)


def _iou(common: np.ndarray, found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Returns intersection over union; 0 for empty masks, as in `rleIou`."""
    union = np.where(crowd, found[:, np.newaxis], found[:, np.newaxis] + truth - common)
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def _pixels(masks: np.ndarray) -> np.ndarray:
    return np.count_nonzero(masks, axis=(1, 2))


def _box_areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def _within_areas(pixels: np.ndarray) -> np.ndarray:
    """Returns which sizes [N] lie in each area, bounds included, bool [areas, N]."""
    low, high = np.array(list(AREAS.values())).T[..., np.newaxis]
    return (low <= pixels) & (pixels <= high)


def _assign(iou: np.ndarray, crowd: np.ndarray, ignored: np.ndarray, found_sizes: np.ndarray) -> np.ndarray:
    """Matches each detection, the highest score first, with the free instance of the highest IoU.

    An instance that counts wins over an ignored one; of equal IoU the last one wins. A crowd takes any number.

    Args:
        iou: float [D, T].
        crowd: bool [T].
        ignored: which instances do not count in an area, bool [areas, T].
        found_sizes: areas of the detections, [D].

    Returns:
        Outcomes, uint8 [D, areas, thresholds].
    """
    shape = len(AREAS), len(IOU_THRESHOLDS), iou.shape[1]
    least = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, np.newaxis]
    counts = ~ignored[:, np.newaxis]
    free = np.ones(shape, bool)
    outside = ~_within_areas(found_sizes).T[..., np.newaxis]
    outcomes = np.where(outside, _IGNORED, _FALSE_POSITIVE) * np.ones((1, 1, shape[1]), np.int64)
    if iou.shape[1]:
        for row, own in enumerate(iou):
            # An IoU minus 2 ranks any ignored instance below those that count; -3 is no match.
            value = np.where((free | crowd) & (own >= least), np.where(counts, own, own - 2), -3.0)
            best = shape[2] - 1 - np.argmax(value[..., ::-1], axis=-1)
            top = np.take_along_axis(value, best[..., np.newaxis], axis=-1)[..., 0]
            outcomes[row][top >= 0] = _TRUE_POSITIVE
            outcomes[row][(top > -3) & (top < 0)] = _IGNORED
            taken = np.arange(shape[2]) == best[..., np.newaxis]
            free &= ~(taken & (top > -3)[..., np.newaxis])
    return outcomes.astype(np.uint8)


class AveragePrecision:
    """Average precision over images.

    Args:
        images: what `match` returned, in any order.
        things: names of the things, in the order of `thing_indices`.
    """

    def __init__(self, images: Sequence[ImageMatches], things: Sequence[str]) -> None:
        self._things = tuple(things)
        self._images = sorted(images, key=lambda image: image.image)
        self._truths = np.array([image.truths for image in self._images]).reshape(-1, len(AREAS), len(things))
        shape = len(KINDS), len(AREAS), len(IOU_THRESHOLDS)
        outcomes = np.concatenate([np.zeros((0, *shape), np.uint8), *(image.outcomes for image in self._images)])
        scores = np.concatenate([np.zeros(0), *(image.scores for image in self._images)])
        classes = np.concatenate([np.zeros(0, np.int64), *(image.things for image in self._images)])
        places = np.repeat(np.arange(len(self._images)), [len(image.scores) for image in self._images])
        order = np.argsort(-scores, kind="stable")
        own = [order[classes[order] == thing] for thing in range(len(things))]
        # By thing: outcomes of its detections and positions of their images, the highest score first.
        self._detected = [(outcomes[rows], places[rows]) for rows in own]

    @property
    def mask_ap(self) -> float:
        """The mean average precision of masks, 0 to 1; NaN without an instance."""
        return float(mean(self._by_threshold(0, 0, self._once)[..., 0].mean(axis=1)))

    def flat(self) -> dict[str, float]:
        """Returns every score by name, 0 to 1, `class_mask_ap/<class name>` included; NaN without an instance."""
        values, by_class = {}, {}
        for kind, kind_name in enumerate(KINDS):
            table = [self._by_threshold(kind, area, self._once)[..., 0] for area in range(len(AREAS))]
            for variant, (area, thresholds) in _VARIANTS.items():
                classes = table[area][:, thresholds].mean(axis=1)
                values[f"{kind_name}_ap{variant}"] = float(mean(classes))
                for name, value in zip(self._things, classes.tolist(), strict=True):
                    by_class[metric_name(f"class_{kind_name}_ap{variant}", name)] = value
        return values | by_class

    def resampled(self) -> Resampled:
        """Returns `mask_ap` and `class_mask_ap/<class name>` of every bootstrap resample, float64 [RESAMPLES]."""
        weights = np.array([poisson_weights(image.image) for image in self._images], np.int32)
        weights = weights.reshape(-1, RESAMPLES).T.copy()
        batches = np.array_split(weights, RESAMPLES // _BATCH)
        classes = np.concatenate([self._by_threshold(0, 0, batch).mean(axis=1) for batch in batches], axis=1)
        names = (metric_name("class_mask_ap", name) for name in self._things)
        return {"mask_ap": mean(classes.T), **dict(zip(names, classes, strict=True))}

    @property
    def _once(self) -> np.ndarray:
        """Weights that count every image once, int64 [1, images]."""
        return np.ones((1, len(self._images)), np.int64)

    def _by_threshold(self, kind: int, area: int, weights: np.ndarray) -> np.ndarray:
        """Returns average precision, float64 [things, thresholds, R]; NaN without an instance that counts.

        Args:
            kind: position in `KINDS`.
            area: position in `AREAS`.
            weights: weights of the images, int64 [R, images].
        """
        result = np.empty((len(self._things), len(IOU_THRESHOLDS), len(weights)))
        for thing, (outcomes, images) in enumerate(self._detected):
            positives, own = weights @ self._truths[:, area, thing], weights[:, images]
            for threshold in range(len(IOU_THRESHOLDS)):
                result[thing, threshold] = interpolate(outcomes[:, kind, area, threshold], own, positives)
        return result


def interpolate(outcomes: np.ndarray, weights: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Returns the mean precision at 101 recalls, float64 [R]; NaN without an instance.

    The precision at a recall is the highest precision at that recall or a higher one. Both rise at true positives only,
    so the other detections are skipped.

    Args:
        outcomes: outcomes of the detections, the highest score first, uint8 [D].
        weights: number of times that each detection counts, int32 or int64 [R, D].
        positives: number of instances, int64 [R].
    """
    hits = np.flatnonzero(outcomes == _TRUE_POSITIVE)
    true = weights[:, hits].cumsum(axis=1, dtype=np.int32)
    seen = (weights * (outcomes != _IGNORED)).cumsum(axis=1, dtype=np.int32)[:, hits]
    precision = true / (seen + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = true / np.maximum(positives, 1)[:, np.newaxis]
    reached = np.searchsorted(RECALLS, recall, side="right")
    total = (highest * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
    return np.where(positives > 0, total / len(RECALLS), np.nan)
