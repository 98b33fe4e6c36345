"""`segpipe compare`: show what differed between two runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.text import Text

from pipeline.cli.lookup import MetadataOptions
from pipeline.cli.options import AsJson, with_options
from pipeline.cli.printing import console, print_json, say, table

_OUTPUTS = {True: "the same", False: "new", None: ""}
_STYLES = {"better": "green", "worse": "red"}


@with_options
def compare(
    run_a: Annotated[str, typer.Argument(help="The run to compare with, as `segpipe runs` lists it.")],
    run_b: Annotated[str, typer.Argument(help="The other run; changes are from RUN_A to RUN_B.")],
    metadata: MetadataOptions,
    as_json: AsJson = False,
) -> None:
    """Compare two runs: settings, data, code, package versions, scores, and which components ran again."""
    from pipeline.history.compare import compare_runs

    found = compare_runs(metadata.workdir(), run_a, run_b)
    if as_json:
        print_json(found)
        return
    say(f"a  {run_a}\nb  {run_b}")
    _print_pairs("Settings", found["settings"])
    data = found["data"]
    counts = {f"{split} pairs": pair for split, pair in data["examples"].items()}
    counts |= {f"{split} quarantined": pair for split, pair in data["quarantined"].items()}
    _print_pairs("Data", {"content hash": data["content_hash"], **counts} if not data["same"] else {})
    _print_pairs("Code", found["code"])
    _print_pairs("Packages", found["packages"])
    _print_scores(found["scores"])
    _print_table(
        "Components",
        ("", "a", "b", "outputs"),
        [(row["name"], row["a"] or "-", row["b"] or "-", _OUTPUTS[row["same_outputs"]]) for row in found["components"]],
    )


def _print_pairs(title: str, pairs: Mapping[str, Mapping[str, Any]] | None) -> None:
    if pairs:
        _print_table(
            title, ("", "a", "b"), [(name, _text(pair["a"]), _text(pair["b"])) for name, pair in pairs.items()]
        )
    else:
        say(f"\n{title}: {'not known, because a run did not finish' if pairs is None else 'the same'}.")


def _print_scores(scores: Mapping[str, Any] | None) -> None:
    if scores is None:
        say("\nScores: not known, because a run has no report.")
        return
    rows: list[tuple[str | Text, ...]] = []
    for name, row in scores["metrics"].items():
        values = ["" if row[key] is None else f"{row[key]:.3f}" for key in ("a", "b")]
        change = "" if row["change"] is None else f"{row['change']:+.3f}"
        interval = "{:+.3f} to {:+.3f}".format(*row["change_interval"]) if row["change_interval"] else ""
        verdict = row["verdict"] or ""
        rows.append((name, *values, change, interval, Text(verdict, _STYLES.get(verdict, ""))))
    numbers = ("a", "b", "change", "95 % interval")
    _print_table("Scores", ("", *numbers, ""), rows, right=numbers)
    if scores["evaluated_in"]:
        say(f"Both models' scores are of the data of run {scores['evaluated_in']}, which compared them.")
    elif not scores["same_data"]:
        say("The scores are of different data, splits or classes, so a change may be due to those.")


def _print_table(
    title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]], right: tuple[str, ...] = ()
) -> None:
    say(f"\n{title}", style="bold")
    made = table(*columns, right=right, fold=columns, padding=(0, 2, 0, 0))
    for row in rows:
        made.add_row(*row)
    console().print(made)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
