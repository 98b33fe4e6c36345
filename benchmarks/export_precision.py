"""What `export.precision` costs: the same network exported in each precision, run in this process.

    python -m benchmarks.export_precision [--model fcn8] [--size 224 224]

The weights are random, which does not change the speed. The models take turns, so that a drift of the machine's speed
slows all of them alike.
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
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], help="the first is compared with")
    parser.add_argument("--batch", type=int, default=8, help="images in each call of the larger batch")
    parser.add_argument("--rounds", type=int, default=10, help="calls of each model and batch, in turns")
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
            # A turn's calls are neighbours in time, so their ratio drifts less than their times.
            ratio = np.median(turns[:, 0] / seconds)
            print(f"{name:12}{batch:6}{np.median(seconds) * 1e3:12.1f}{ratio:16.2f}{megabytes[name]:12.1f}", flush=True)


def export_all(model: str, size: tuple[int, int], precisions: list[str], work: str) -> None:
    """Exports a network of random weights in each precision, each to a folder of its name below a folder."""
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
    """Returns the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
