"""Makes small sources of annotation tools, imports them, and reads the result as a run does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from components.dataset.checks import Sample, read_pair
from components.dataset.description import detect
from components.dataset.pairs import find_pairs
from components.importers import Options, import_dataset

HEIGHT, WIDTH = 20, 30
SIZE = (HEIGHT, WIDTH)
TRIANGLE = [[2.3, 1.2], [27.8, 5.5], [11.1, 18.6]]


def draw_image(path, size=SIZE, value=90):
    """Writes a grey image whose pixels depend on its value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path)
    return path


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def box(top, left, bottom, right, size=SIZE):
    """Returns bool [H, W], True within rows [top, bottom) and columns [left, right)."""
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def corners(top, left, bottom, right):
    """Returns the polygon around the pixels of `box`."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def flat(points):
    return [coordinate for point in points for coordinate in point]


def inside(points, size=SIZE):
    """Returns the pixels whose centre lies in a polygon, one by one, by counting the edges to its left."""
    mask = np.zeros(size, dtype=bool)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y, odd = column + 0.5, row + 0.5, False
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
                if (y0 > y) != (y1 > y) and x > x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                    odd = not odd
            mask[row, column] = odd
    return mask


def painted(*layers, size=SIZE):
    """Returns class indices from pairs of index and mask, the first below."""
    mask = np.zeros(size, dtype=np.uint8)
    for index, layer in layers:
        mask[layer] = index
    return mask


def tree(root):
    return {path: path.read_bytes() for path in sorted(Path(root).rglob("*")) if path.is_file()}


def run_import(format_name, source, destination, **options):
    """Imports, and returns the result, the description, and masks, images and instances by (split, name)."""
    before = tree(source)
    result = import_dataset(format_name, str(source), str(destination), Options(**options))
    assert tree(source) == before, "the source has changed"
    description = detect(str(destination))
    pairs, issues = find_pairs(str(destination), description)
    assert not issues
    samples = {(pair.split, pair.name): read_pair(str(destination), pair, description) for pair in pairs}
    assert all(isinstance(sample, Sample) for sample in samples.values()), samples
    masks = {key: np.asarray(Image.open(destination / sample.pair.mask)) for key, sample in samples.items()}
    images = {key: (destination / sample.pair.image).read_bytes() for key, sample in samples.items()}
    instances = {key: sample.instances for key, sample in samples.items()}
    return SimpleNamespace(result=result, description=description, masks=masks, images=images, instances=instances)


def masks_by_name(done):
    return {name: mask for (_, name), mask in done.masks.items()}
