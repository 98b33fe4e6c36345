"""Measures the seconds of each component, fresh and cached, and of a plain loop over the same files.

    python -m benchmarks.overhead --data data/camvid

The plain loop opens the same images and masks with Pillow, resizes both and stacks them with NumPy.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

import numpy as np
from PIL import Image

from benchmarks.finished_runs import OPEN_GATE, run_pipeline
from components.dataset.description import detect
from components.dataset.pairs import find_pairs
from pipeline.configuration.presets import preset


def plain_loop(data: str, size: tuple[int, int]) -> float:
    """Returns the seconds of a loop over all pairs without checks, records or statistics."""
    pairs, _ = find_pairs(data, detect(data).without_instances().without_depth())
    height, width = size
    start = time.monotonic()
    images, masks = [], []
    for pair in pairs:
        with Image.open(os.path.join(data, pair.image)) as image, Image.open(os.path.join(data, pair.mask)) as mask:
            images.append(np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)))
            masks.append(np.asarray(mask.resize((width, height), Image.Resampling.NEAREST)))
    np.stack(images), np.stack(masks)
    return time.monotonic() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of images and masks")
    parser.add_argument("--model", default="fcn8", help="architecture to train for one epoch")
    arguments = parser.parse_args()
    options = ("--data", arguments.data, "--model", arguments.model, "--preset", "cpu", "--epochs", "1")
    with tempfile.TemporaryDirectory() as work:
        fresh, cached = (run_pipeline(*options, work=work, settings=OPEN_GATE) for _ in range(2))
    loop = plain_loop(arguments.data, preset("cpu", arguments.model)["size"])
    print(f"{'component':22}{'fresh, s':>10}{'cached, s':>11}")
    for name, seconds in fresh["timings"].items():
        print(f"{name:22}{seconds:10.1f}{cached['timings'][name]:11.2f}")
    for row, left_out in (("all but Trainer", "Trainer"), ("all", "")):
        sums = [sum(run["timings"].values()) - run["timings"].get(left_out, 0) for run in (fresh, cached)]
        print(f"{row:22}{sums[0]:10.1f}{sums[1]:11.2f}")
    data_part = sum(fresh["timings"][name] for name in ("ImageMaskExampleGen", "StatisticsGen", "Transform"))
    print(
        f"plain Pillow and NumPy loop: {loop:.1f} s; ingest, statistics and Transform over it: {data_part / loop:.1f}"
    )


if __name__ == "__main__":
    main()
