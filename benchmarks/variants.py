"""Measures the latency, size and mean IoU of each optimised variant of a model.

    python -m benchmarks.variants --data data/camvid --work work

Runs the pipeline with every variant. In a work directory with a finished training, only the variants are built. The
gate accepts every model, so the table is printed regardless of the scores.
"""

from __future__ import annotations

import argparse

from benchmarks.finished_runs import OPEN_GATE, run_pipeline
from components.artifact_files import read_model_metadata
from serving.comparison import Measurement, table


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
    options = ("--data", arguments.data, "--model", arguments.model, "--preset", "cpu")
    settings = ("export.variants=[folded,bfloat16,int8]", *OPEN_GATE, *arguments.set)
    pushed = run_pipeline(*options, work=arguments.work, settings=settings)["pushed"]
    print(table([Measurement(**row) for row in read_model_metadata(pushed)["variants"]]))


if __name__ == "__main__":
    main()
