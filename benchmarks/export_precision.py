"""Compares the latency and size of one network exported in each `export.precision`.

    python -m benchmarks.export_precision [--model fcn8] [--size 224 224]

The models run in this process. Their weights are random, which does not change the speed. The models are called in
turns, so changes of the machine's speed affect all of them equally.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.serving import SavedModel, timed
from benchmarks.serving_memory import classes, picture, write_transform

_CLASSES = 12
_PICTURES_SIDE = 360


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="fcn8", help="architecture")
    parser.add_argument(
        "--size", type=int, nargs=2, default=[224, 224], help="height and width of the input, in pixels"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["float32", "bfloat16"],
        help="precisions to compare; the first is the reference",
    )
    parser.add_argument("--batch", type=int, default=8, help="images per call; a batch of 1 is always measured too")
    parser.add_argument("--rounds", type=int, default=10, help="timed calls of each model and batch size")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    image = picture(_PICTURES_SIDE, "PNG")
    with tempfile.TemporaryDirectory() as work:
        export_all(arguments.model, tuple(arguments.size), arguments.precisions, work)
        models = {name: SavedModel(os.path.join(work, name)) for name in arguments.precisions}
        megabytes = {name: folder_bytes(os.path.join(work, name)) / 1e6 for name in models}
    first = arguments.precisions[0]
    print(f"{'precision':12}{'batch':>6}{'median, ms':>12}{f'{first} over it':>16}{'MB on disk':>12}")
    for batch in (1, arguments.batch):
        calls = {name: functools.partial(model, [image] * batch) for name, model in models.items()}
        for _ in range(2):
            for call in calls.values():
                call()
        turns = np.array([[timed(call) for call in calls.values()] for _ in range(arguments.rounds)])
        for name, seconds in zip(models, turns.T, strict=True):
            # The calls of a turn follow each other directly, so their ratio varies less than their times.
            ratio = np.median(turns[:, 0] / seconds)
            print(f"{name:12}{batch:6}{np.median(seconds) * 1e3:12.1f}{ratio:16.2f}{megabytes[name]:12.1f}", flush=True)


def export_all(model: str, size: tuple[int, int], precisions: list[str], work: str) -> None:
    """Exports a network with random weights to `work/PRECISION` for each precision."""
    from serving.export import export
    from serving.precision import with_precision
    from trainer.config import ModelSettings
    from trainer.models import registry

    class_map = classes(_CLASSES)
    transform = write_transform(class_map, size, work)
    network = registry.build(ModelSettings(name=model), size, _CLASSES)
    for name in precisions:
        directory = os.path.join(work, name)
        export(with_precision(network, name), transform, directory, class_map, size, {"model": model})


def folder_bytes(folder: str) -> int:
    """Returns the total size of a folder's files in bytes."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
