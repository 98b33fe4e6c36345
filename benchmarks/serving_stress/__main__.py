"""Tests the local server under version swaps, overload and malformed requests; exit code 1 if it breaks a guarantee.

    python -m benchmarks.serving_stress --model work/serving/fcn8 --images data/camvid/val \
        --soak 120 --overload 60 --fuzz 10000

Each part starts its own `segpipe serve` on 127.0.0.1 and stops it at the end.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from benchmarks.serving import read_images
from benchmarks.serving_stress.fuzz import fuzz
from benchmarks.serving_stress.overload import overload
from benchmarks.serving_stress.soak import soak
from serving.predictor import find_version


def main() -> None:
    """Runs the selected parts and prints a table for each."""
    arguments = _arguments()
    model = Path(find_version(arguments.model))
    images = read_images(arguments.images, 32)
    flags = shlex.split(arguments.flags)
    parts = {
        "soak": lambda work: soak(work, model, images, arguments.soak, arguments.every, arguments.clients, flags),
        "overload": lambda work: overload(
            work, model, images, arguments.overload, arguments.factor, arguments.clients, flags
        ),
        "fuzz": lambda work: fuzz(work, model, images, arguments.fuzz, arguments.seed, flags),
    }
    passed = True
    for name, part in parts.items():
        amount = getattr(arguments, name)
        if not amount:
            continue
        print(f"{name}: {amount:g} {'requests' if name == 'fuzz' else 'seconds'}", flush=True)
        with tempfile.TemporaryDirectory() as work:
            good = part(Path(work))
        print(f"{name}: {'passed' if good else 'FAILED'}\n", flush=True)
        passed = passed and good
    sys.exit(0 if passed else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving_stress",
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="an exported model, or a folder of versions of one")
    parser.add_argument("--images", required=True, help="folder of images to send")
    parser.add_argument("--soak", type=float, default=0, help="seconds of version swaps under load; 0 skips this part")
    parser.add_argument("--overload", type=float, default=0, help="seconds of overload; 0 skips this part")
    parser.add_argument("--fuzz", type=int, default=0, help="number of malformed requests; 0 skips this part")
    parser.add_argument("--clients", type=int, default=16, help="clients of the soak and of the capacity measurement")
    parser.add_argument("--every", type=float, default=3, help="seconds between two version swaps in the soak")
    parser.add_argument(
        "--factor", type=float, default=4, help="request rate of the overload, as a multiple of the measured capacity"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the malformed requests")
    parser.add_argument("--flags", default="", help="further flags of segpipe serve, such as '--max_queue 16'")
    arguments = parser.parse_args()
    if not (arguments.soak or arguments.overload or arguments.fuzz):
        parser.error("nothing to do: expected at least one of --soak, --overload and --fuzz")
    return arguments


if __name__ == "__main__":
    main()
