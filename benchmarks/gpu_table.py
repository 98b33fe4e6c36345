"""Prints a Markdown table of the results of `benchmarks.training --json`.

python -m benchmarks.gpu_table FOLDER
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks.training import DATA, KERAS, REPEATED, TORCH

_COLUMNS = (
    "model",
    "XLA",
    "images/s",
    "images/s, real data",
    "step time with real data over one batch repeated",
    "Keras `fit`, images/s",
    "over Keras `fit`",
    "PyTorch, images/s",
    "over PyTorch",
    "first step, s",
    "peak GPU memory, GB",
)
_MISSING = "-"


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Returns the machine, the settings common to all results, and a table with one row for each result.

    Args:
        results: contents of the files that `benchmarks.training --json` writes, all from one machine.
    """
    settings = [result["settings"] for result in results]
    shared = {key: value for key, value in settings[0].items() if all(other[key] == value for other in settings)}
    facts = {**results[0]["machine"], **{key: shared[key] for key in shared if key not in ("model", "XLA")}}
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", _row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
    failed = []
    for result in results:
        lines.append(_row(_cells(result)))
        for name, values in result["contenders"].items():
            if "error" in values:
                failed.append(f"- {result['settings']['model']}, {name} was not measured: {values['error']}")
    return "\n".join([*lines, *([""] if failed else []), *failed, ""])


def _cells(result: dict[str, Any]) -> list[str]:
    contenders, ratios = result["contenders"], result["ratios"]

    def value(name: str, field: str, digits: int, scale: float = 1) -> str:
        found = contenders.get(name, {}).get(field)
        return _MISSING if found is None else f"{found / scale:.{digits}f}"

    def ratio(name: str, digits: int = 2) -> str:
        return f"{ratios[name]:.{digits}f}" if name in ratios else _MISSING

    return [
        result["settings"]["model"],
        "yes" if result["settings"]["XLA"] else "no",
        value(REPEATED, "images_per_second", 1),
        value(DATA, "images_per_second", 1),
        ratio(DATA, digits=3),
        value(KERAS, "images_per_second", 1),
        ratio(KERAS),
        value(TORCH, "images_per_second", 1),
        ratio(TORCH),
        value(REPEATED, "first_step_seconds", 1),
        value(REPEATED, "peak_memory_bytes", 2, scale=1e9),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="folder with the JSON files")
    folder = parser.parse_args().folder
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        parser.error(f"{folder}: found no .json file, expected those of benchmarks.training --json")
    print(markdown([json.loads(file.read_text()) for file in files]))


if __name__ == "__main__":
    main()
