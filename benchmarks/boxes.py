"""Compares boxes with masks: how much of a box its object fills, and which objects a mask cannot separate.

    python -m benchmarks.boxes --data DATA --split val --picture boxes.png

Prints a table with a row for each class: the number of connected areas of at least `--pixels` pixels, and the mean
fraction of a box that its area fills. For classes with instances, the row also has the number of instances, how many
touch another instance of the class, and how many consist of several areas.
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
from PIL import Image
from scipy import ndimage

from components import drawing
from components.class_map import ClassMap
from components.dataset.checks import Sample, read_pair
from components.dataset.description import detect
from components.dataset.pairs import find_pairs
from components.instances import Instances
from components.mask_boxes import mask_boxes
from components.metrics.confusion import decode_mask


@dataclasses.dataclass
class Counts:
    """Counts of one class."""

    fills: list[float] = dataclasses.field(default_factory=list)
    instances: int = 0
    touching: int = 0
    split: int = 0

    def add(self, mask: np.ndarray, index: int, pixels: int) -> None:
        """Adds the connected areas of a class in a mask, uint8 [H, W]."""
        self.fills += [each.fill for each in mask_boxes(mask, [index], pixels)]

    def add_instances(self, instances: Instances, index: int) -> None:
        """Adds the instances of a class in a frame, without crowds."""
        masks = instances.masks[(instances.classes == index) & ~instances.crowd]
        labels, count = ndimage.label(masks.any(axis=0), structure=np.ones((3, 3)))
        areas = np.array([np.bincount(labels[mask], minlength=count + 1) > 0 for mask in masks], bool)
        areas = areas.reshape(-1, count + 1)[:, 1:]
        self.instances += len(masks)
        self.touching += int((areas & (areas.sum(axis=0) > 1)).any(axis=1).sum())
        self.split += int((areas.sum(axis=1) > 1).sum())


def table(counts: dict[str, Counts]) -> str:
    """Returns the counts as a Markdown table."""
    rows = [
        "| class | connected areas | fraction of the box | instances | touching another | in several pieces |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in counts.items():
        fill = f"{np.mean(each.fills):.0%}" if each.fills else ""
        columns = [str(value) if each.instances else "" for value in (each.instances, each.touching, each.split)]
        rows.append(f"| {name} | {len(each.fills)} | {fill} | {' | '.join(columns)} |")
    return "\n".join(rows)


def draw(sample: Sample, class_map: ClassMap, path: str) -> None:
    """Writes a picture of a frame with boxes, beside the same frame with its mask.

    Boxes are drawn around areas of at least 1/200 of the frame's pixels.
    """
    image, mask = drawing.photo(sample.image), decode_mask(sample.mask)
    found = mask_boxes(mask, class_map.scored_indices, mask.size // 200)
    colors = [class_map.colors[each.index] for each in found]
    boxes = drawing.draw_boxes(
        Image.fromarray(image), np.array([each.box for each in found]), [""] * len(found), colors
    )
    Image.fromarray(np.hstack([boxes, drawing.overlay(image, mask, class_map)])).save(path)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images, masks and instances")
    parser.add_argument("--split", default="val", help="split to read (default: val)")
    parser.add_argument("--pixels", type=int, default=20, help="ignore areas with fewer pixels (default: 20)")
    parser.add_argument("--picture", help="write a picture of the first frame to this file")
    options = parser.parse_args()
    description = detect(options.data)
    class_map = description.class_map
    counts = {name: Counts() for name in class_map.scored_names}
    pairs = [pair for pair in find_pairs(options.data, description)[0] if pair.split == options.split]
    for number, pair in enumerate(pairs):
        sample = read_pair(options.data, pair, description)
        if not isinstance(sample, Sample):
            raise SystemExit(f"{sample.file}: found {sample.found}, expected {sample.expected}")
        for index in class_map.scored_indices:
            counts[class_map.names[index]].add(decode_mask(sample.mask), index, options.pixels)
        if sample.instances is not None:
            for index in description.thing_indices:
                counts[class_map.names[index]].add_instances(sample.instances, index)
        if number == 0 and options.picture:
            draw(sample, class_map, options.picture)
    print(f"{len(pairs)} frames\n\n{table(counts)}")


if __name__ == "__main__":
    main()
