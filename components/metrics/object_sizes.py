"""Compute scores by object size: the fraction of the pixels of small, medium and large objects that is found.

An object is a connected area of one class in the truth; pixels that touch at a corner are connected. Class masks do not
separate instances: two cars that touch are one object.

COCO's bounds, 32² and 96² pixels (cocodataset.org, detection evaluation; `areaRng` in pycocotools 2.0, cocoeval.py),
are for photos of about 640x480 pixels. Here they are the same fractions of the image's area, 1/300 and 3/100: networks
resize an image to their input, so its fraction of the image matters, not the camera's resolution.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from components.class_map import ClassMap
from components.metrics.scores import or_null, ratio

SIZES = ("small", "medium", "large")
# Objects below the first fraction of the image's area are small, below the second medium.
BOUNDS = (32**2 / (640 * 480), 96**2 / (640 * 480))


@dataclasses.dataclass(frozen=True)
class SizeScore:
    """The score of the objects of one size.

    Attributes:
        objects: number of objects in the truth.
        pixels: their pixels.
        recall: fraction of these pixels whose class is right; None without objects.
    """

    objects: int
    pixels: int
    recall: float | None


def object_counts(truth: np.ndarray, prediction: np.ndarray, class_map: ClassMap) -> np.ndarray:
    """Counts the objects and their pixels by class and size.

    Args:
        truth: class indices, uint8 [H, W].
        prediction: class indices, uint8 [H, W].
        class_map: the classes.

    Returns:
        Objects, their pixels and the pixels found, int64 [scored classes, sizes, 3].
    """
    from scipy import ndimage

    counts = np.zeros((len(class_map.scored_indices), len(SIZES), 3), np.int64)
    bounds = np.multiply(BOUNDS, truth.size)
    hit = truth == prediction
    # Label only the bounding box of each class.
    boxes = ndimage.find_objects(truth.astype(np.intp) + 1, max_label=class_map.num_classes)
    for place, index in enumerate(class_map.scored_indices):
        box = boxes[index]
        if box is None:
            continue
        labels, _ = ndimage.label(truth[box] == index, structure=np.ones((3, 3)))
        pixels = np.bincount(labels.ravel())[1:]
        found = np.bincount(labels[hit[box]], minlength=len(pixels) + 1)[1:]
        size = np.searchsorted(bounds, pixels, side="right")
        np.add.at(counts[place], size, np.stack([np.ones_like(pixels), pixels, found], axis=-1))
    return counts


def size_scores(counts: np.ndarray) -> dict[str, SizeScore]:
    """Returns the scores by size.

    Args:
        counts: objects, pixels and found pixels of one class or of several, integer [sizes, 3].
    """
    recalls = ratio(counts[:, 2], counts[:, 1])
    return {
        size: SizeScore(int(objects), int(pixels), or_null(float(recall)))
        for size, (objects, pixels, _), recall in zip(SIZES, counts, recalls, strict=True)
    }
