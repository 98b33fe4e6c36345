"""How well a preset does on streets that it never saw: one video sequence is held out of training and scored.

    python -m benchmarks.held_out --data data/camvid --sequence 0001TP --work work/held_out

The other training pairs train the model, and the held-out sequence takes the place of the validation split; it
chooses nothing, so the last epoch is kept. The model is then scored on the real validation split too: the gap says
what a street costs that was never seen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.recipes import THIN_CLASSES
from components.dataset.description import detect
from components.dataset.pairs import find_pairs
from components.errors import UsageError

_SEGPIPE = (sys.executable, "-m", "pipeline.cli.main")


def hold_out(data: str, sequence: str, destination: str) -> dict[str, int]:
    """Links the training pairs into a new data set whose validation split is one sequence.

    Args:
        data: folder of images and masks whose training split holds several sequences.
        sequence: name of the one to hold out.
        destination: folder to make, in the layout `{split}/{name}.png` and `{split}annot/{name}.png`; one that is
            there is replaced.

    Returns:
        The number of pairs of each split.

    Raises:
        UsageError: when the training split has no such sequence, or no other.
    """
    pairs = [pair for pair in find_pairs(data, detect(data))[0] if pair.split == "train"]
    sequences = sorted({pair.sequence for pair in pairs})
    if sequence not in sequences or len(sequences) == 1:
        raise UsageError(f"--sequence {sequence}: expected one of several sequences of split train: {sequences}")
    shutil.rmtree(destination, ignore_errors=True)
    counts = {"train": 0, "val": 0}
    for split in counts:
        os.makedirs(os.path.join(destination, split))
        os.makedirs(os.path.join(destination, f"{split}annot"))
    for pair in pairs:
        split = "val" if pair.sequence == sequence else "train"
        counts[split] += 1
        for folder, source in ((split, pair.image), (f"{split}annot", pair.mask)):
            link = os.path.join(destination, folder, os.path.basename(source))
            os.symlink(os.path.abspath(os.path.join(data, source)), link)
    return counts


def evaluate(model: str, data: str) -> dict[str, Any]:
    """Returns the scores of an exported model on the validation split, as `segpipe evaluate` prints them."""
    command = [*_SEGPIPE, "evaluate", "--model", model, "--data", data, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def table(held_out: dict[str, Any], validation: dict[str, Any]) -> str:
    """Lays out the scores of one model on both splits.

    Args:
        held_out: `mean_iou`, and `class_iou` by name with None where a class is absent.
        validation: the same.
    """
    splits = (held_out, validation)
    rows = {name: [scores["class_iou"].get(name) for scores in splits] for name in held_out["class_iou"]}
    if all(None not in rows.get(name, [None]) for name in THIN_CLASSES):
        rows[", ".join(THIN_CLASSES)] = [
            sum(rows[name][split] for name in THIN_CLASSES) / len(THIN_CLASSES) for split in range(len(splits))
        ]
    rows["mean IoU"] = [scores["mean_iou"] for scores in splits]
    width = max(map(len, rows)) + 2
    lines = [f"{'IoU':{width}}{'held out':>12}{'validation':>12}"]
    for name, scores in rows.items():
        lines.append(f"{name:{width}}" + "".join(f"{'absent' if s is None else f'{s:.3f}':>12}" for s in scores))
    return "\n".join([*lines, f"gap: {validation['mean_iou'] - held_out['mean_iou']:.3f}"])


def main() -> None:
    """Trains, and prints the scores on the held-out sequence and on the validation split."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of images and masks, in CamVid's layout")
    parser.add_argument("--sequence", default="0001TP", help="sequence to hold out of training")
    parser.add_argument("--model", default="fcn8", help="architecture")
    parser.add_argument("--preset", default="cpu", help="preset")
    parser.add_argument("--config", help="YAML file of settings over the preset")
    parser.add_argument("--work", help="folder to keep the runs in, one folder for each sequence; None keeps nothing")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = arguments.work or stack.enter_context(tempfile.TemporaryDirectory())
        data, work = (os.path.join(root, arguments.sequence, name) for name in ("pairs", "run"))
        print(hold_out(arguments.data, arguments.sequence, data), flush=True)
        command = [*_SEGPIPE, "run", "--data", data, "--out", work]
        command += ["--model", arguments.model, "--preset", arguments.preset, "--set", "training.keep=last"]
        command += ["--config", arguments.config] if arguments.config else []
        # The gate's bounds are for the validation split, and another recipe may well be the worse one.
        bounds = ("min_mean_iou=0", "min_class_iou={}", "max_mean_drop=1", "max_class_drop=1")
        options = [word for bound in bounds for word in ("--set", f"gate.{bound}")]
        subprocess.run([*command, *options], check=True)
        with open(os.path.join(work, "latest", "summary.json")) as file:
            summary = json.load(file)
        print(table(summary["metrics"], evaluate(summary["pushed"], arguments.data)))


if __name__ == "__main__":
    main()
