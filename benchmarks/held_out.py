"""Trains without one video sequence, then scores the model on that sequence.

    python -m benchmarks.held_out --data data/camvid --sequence 0001TP --work work/held_out

The gate scores the held-out sequence. The last epoch is used, so no split selects anything. The table also has the
scores on the validation split, and the gap between the two mean IoUs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from typing import Any

from benchmarks.finished_runs import OPEN_GATE, run_pipeline
from benchmarks.recipes import SMALL_OBJECT_CLASSES


def settings(sequence: str) -> list[str]:
    """Returns the `--set` values of a run that holds out a sequence and pushes its model regardless of the scores."""
    return [
        f"data.held_out_sequences=[{json.dumps(sequence)}]",
        "data.gate_split=held_out",
        "training.keep=last",
        # The bounds of the preset are for the validation split, and the pushed baseline may have another recipe.
        *OPEN_GATE,
    ]


def table(held_out: dict[str, Any], validation: dict[str, Any]) -> str:
    """Returns a table of one model's scores on both splits.

    Args:
        held_out: `mean_iou`, and `class_iou` by class name; None for an absent class.
        validation: the same for the validation split.
    """
    splits = (held_out, validation)
    rows = {name: [scores["class_iou"].get(name) for scores in splits] for name in held_out["class_iou"]}
    if all(None not in rows.get(name, [None]) for name in SMALL_OBJECT_CLASSES):
        rows[", ".join(SMALL_OBJECT_CLASSES)] = [
            sum(rows[name][split] for name in SMALL_OBJECT_CLASSES) / len(SMALL_OBJECT_CLASSES)
            for split in range(len(splits))
        ]
    rows["mean IoU"] = [scores["mean_iou"] for scores in splits]
    width = max(map(len, rows)) + 2
    lines = [f"{'IoU':{width}}{'held out':>12}{'validation':>12}"]
    for name, scores in rows.items():
        lines.append(f"{name:{width}}" + "".join(f"{'absent' if s is None else f'{s:.3f}':>12}" for s in scores))
    return "\n".join([*lines, f"gap: {validation['mean_iou'] - held_out['mean_iou']:.3f}"])


def main() -> None:
    """Trains a model and prints its scores on the held-out sequence and on the validation split."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of images and masks")
    parser.add_argument("--sequence", default="0001TP", help="sequence to hold out of training")
    parser.add_argument("--model", default="fcn8", help="architecture")
    parser.add_argument("--preset", default="cpu", help="preset")
    parser.add_argument("--config", help="YAML file of settings that override the preset")
    parser.add_argument("--work", help="keep the run in SEQUENCE/run below this folder; if not given, delete it")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = arguments.work or stack.enter_context(tempfile.TemporaryDirectory())
        work = os.path.join(root, arguments.sequence, "run")
        options = ["--data", arguments.data, "--model", arguments.model, "--preset", arguments.preset]
        options += ["--config", arguments.config] if arguments.config else []
        summary = run_pipeline(*options, work=work, settings=settings(arguments.sequence), quiet=False)
        print(summary["data"]["examples"])
        print(table(summary["metrics"], summary["selection_metrics"]))


if __name__ == "__main__":
    main()
