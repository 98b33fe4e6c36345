"""Random instances and detections that resemble them, with equal scores, crowds and absent classes."""

from __future__ import annotations

import numpy as np

from components.instances import Instances, boxes
from components.metrics.detections import Detections

THINGS = ("car", "pedestrian", "tram", "bicycle")
# Class indices of the things. The third class never occurs; the fourth occurs in detections only.
INDICES = (2, 3, 7, 9)
SIZE = (140, 150)
Scene = tuple[bytes, Instances, Detections]


def ellipse(random: np.random.Generator, center: np.ndarray, radius: np.ndarray) -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    mask = ((rows - center[0]) / radius[0]) ** 2 + ((columns - center[1]) / radius[1]) ** 2 <= 1
    mask[tuple(center.astype(int))] = True
    return mask


def scenes(seed: int, count: int = 12, detections: int = 30) -> list[Scene]:
    """Images whose detections are the true instances, moved and resized. Scores have one digit, so many are equal.

    Crowds take several detections, and instances of all three sizes overlap.
    """
    random = np.random.default_rng(seed)
    found = []
    for index in range(count):
        number = int(random.integers(0, 9))
        centers = random.uniform((10, 10), (130, 140), (number, 2))
        radii = random.choice([4.0, 12.0, 25.0, 65.0], (number, 1)) * random.uniform(0.7, 1.4, (number, 2))
        classes = random.choice(INDICES[:2], number)
        truth = [
            (ellipse(random, c, r), k, random.random() < 0.15) for c, r, k in zip(centers, radii, classes, strict=True)
        ]
        masks, labels = [], []
        for _ in range(detections):
            if number and random.random() < 0.8:
                at = int(random.integers(number))
                center = np.clip(centers[at] + random.normal(0, radii[at] * 0.12), 0, 139)
                masks.append(ellipse(random, center, radii[at] * random.uniform(0.85, 1.15, 2)))
                labels.append(classes[at] if random.random() < 0.9 else INDICES[3])
            else:
                masks.append(ellipse(random, random.uniform(5, 135, 2), random.uniform(3, 40, 2)))
                labels.append(int(random.choice(INDICES)) if random.random() < 0.9 else 0)
        masks = np.array(masks)
        labels = np.where(np.array(labels) == INDICES[2], INDICES[1], labels)
        scores = np.round(random.random(detections), 1)
        found.append((f"{seed}/{index}".encode(), Instances.stack(truth, SIZE), to_detections(masks, labels, scores)))
    return found


def to_detections(masks: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> Detections:
    return Detections(masks, boxes(masks), np.asarray(classes, np.int64), np.asarray(scores, np.float32))
