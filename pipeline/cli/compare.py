"""`segpipe compare`: what differed between two runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from pipeline.cli import lookup

_OUTPUTS = {True: "the same", False: "made anew", None: ""}
_STYLES = {"better": "green", "worse": "red"}


def compare(
    run_a: Annotated[str, typer.Argument(help="The run to compare with, as `segpipe runs` lists it.")],
    run_b: Annotated[str, typer.Argument(help="The other run; changes are from RUN_A to RUN_B.")],
    out: lookup.Out = "work",
    config: lookup.Config = "",
    as_json: lookup.AsJson = False,
) -> None:
    """Compare two runs: settings, data, code, package versions, scores, and which components ran anew."""
    from pipeline.history.compare import compare_runs

    found = compare_runs(lookup.open_workdir(out, config), run_a, run_b)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"a  {run_a}\nb  {run_b}")
    _print_pairs(console, "Settings", found["settings"])
    data = found["data"]
    counts = {f"{split} pairs": pair for split, pair in data["examples"].items()}
    counts |= {f"{split} quarantined": pair for split, pair in data["quarantined"].items()}
    _print_pairs(console, "Data", {"content hash": data["content_hash"], **counts} if not data["same"] else {})
    _print_pairs(console, "Code", found["code"])
    _print_pairs(console, "Packages", found["packages"])
    _print_scores(console, found["scores"])
    _print_components(console, found["components"])


def _print_pairs(console: Console, title: str, pairs: Mapping[str, Mapping[str, Any]] | None) -> None:
    if not pairs:
        console.print(f"\n{title}: {'not known, because a run did not finish' if pairs is None else 'the same'}.")
        return
    table = _table(console, title, "", "a", "b")
    for name, pair in pairs.items():
        table.add_row(name, _text(pair["a"]), _text(pair["b"]))
    console.print(table)


def _print_scores(console: Console, scores: Mapping[str, Any] | None) -> None:
    if scores is None:
        console.print("\nScores: not known, because a run has no report.")
        return
    table = _table(console, "Scores", "", "a", "b", "change", "95 % interval", "")
    for name, row in scores["metrics"].items():
        change = "" if row["change"] is None else f"{row['change']:+.3f}"
        interval = "{:+.3f} to {:+.3f}".format(*row["change_interval"]) if row["change_interval"] else ""
        verdict = row["verdict"] or ""
        table.add_row(
            name, *map(_score, (row["a"], row["b"])), change, interval, Text(verdict, _STYLES.get(verdict, ""))
        )
    console.print(table)
    if scores["evaluated_in"]:
        where = f"run {scores['evaluated_in']}"
        console.print(f"Both models' scores are of the data of {where}, which compared them.", soft_wrap=True)
    elif not scores["same_data"]:
        console.print(
            "The scores are of different data, splits or classes, so a change may be due to those.", soft_wrap=True
        )


def _print_components(console: Console, components: list[dict[str, Any]]) -> None:
    table = _table(console, "Components", "", "a", "b", "outputs")
    for row in components:
        table.add_row(row["name"], row["a"] or "-", row["b"] or "-", _OUTPUTS[row["same_outputs"]])
    console.print(table)


def _table(console: Console, title: str, *columns: str) -> Table:
    console.print(f"\n{title}", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if title == "Scores" and 0 < index < len(columns) - 1 else "left"
        table.add_column(column, justify=justify, overflow="fold")
    return table


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
