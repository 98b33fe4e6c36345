"""Measures the latency, size and mean IoU of each optimised variant of a model.

    python -m benchmarks.variants --data data/camvid --work work

Runs the pipeline with every variant. In a work directory with a finished training, only the variants are built. The
gate accepts every model, so the table is printed regardless of the scores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from components.artifact_files import read_model_metadata
from serving.comparison import Measurement, table


def run(data: str, work: str, model: str, extra: list[str]) -> str:
    """Runs the pipeline with all variants and returns the directory of the pushed model."""
    command = [sys.executable, "-m", "pipeline.cli.main", "run", "--data", data, "--out", work, "--model", model]
    settings = ["export.variants=[folded,bfloat16,int8]", "gate.min_mean_iou=0", "gate.min_class_iou={}"]
    settings += ["gate.max_mean_drop=1", "gate.max_class_drop=1", *extra]
    options = [part for setting in settings for part in ("--set", setting)]
    subprocess.run([*command, "--preset", "cpu", *options], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(work, "latest", "summary.json")) as file:
        return json.load(file)["pushed"]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of images and masks")
    parser.add_argument("--work", required=True, help="work directory of the run")
    parser.add_argument("--model", default="fcn8", help="architecture")
    parser.add_argument(
        "--set", action="append", default=[], help="another setting of the run, such as training.epochs=1; repeatable"
    )
    arguments = parser.parse_args()
    pushed = run(arguments.data, arguments.work, arguments.model, arguments.set)
    print(table([Measurement(**row) for row in read_model_metadata(pushed)["variants"]]))


if __name__ == "__main__":
    main()
