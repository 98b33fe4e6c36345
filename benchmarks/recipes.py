"""Draws the validation scores of finished runs against their training time.

    python -m benchmarks.recipes "fcn8, preset cpu=work/fcn8" --results docs/recipes.json --picture recipes.svg

Each argument selects the newest run of a work directory that trained. A line joins the validations during training, at
the network's input size. The star is the evaluation of the exported model, at the masks' own size and the end of the
run. `--results` keeps the results after a work directory is deleted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from typing import Any

from benchmarks.finished_runs import named, newest_training
from components.errors import UsageError
from pipeline.storage.store import NodeExecution

# The small-object classes: slender or small in a street scene, and the hardest ones in published results.
SMALL_OBJECT_CLASSES = ("column_pole", "traffic_light", "pedestrian", "bicyclist")


@dataclasses.dataclass(frozen=True)
class Result:
    """The scores and duration of one run.

    Attributes:
        name: the recipe's name.
        validations: minutes of training and mean IoU, for each validation.
        minutes: duration of the run; from data folder to pushed model if nothing was cached.
        mean_iou: score of the exported model on the validation split.
        small_objects: mean IoU of `SMALL_OBJECT_CLASSES`; None if the data set lacks one of them.
    """

    name: str
    validations: tuple[tuple[float, float], ...]
    minutes: float
    mean_iou: float
    small_objects: float | None


def read(name: str, root: str) -> Result:
    """Reads the newest finished run of a work directory that trained.

    Raises:
        UsageError: no finished run trained.
    """
    summary, executions = newest_training(root)
    with open(os.path.join(executions["Trainer"].outputs["model_run"][0].uri, "history.json")) as file:
        history = json.load(file)
    # `selection_metrics` exists only if the gate scored another split than validation.
    scores = summary.get("selection_metrics") or summary["metrics"]
    class_iou = scores["class_iou"]
    small = [class_iou[name] for name in SMALL_OBJECT_CLASSES if class_iou.get(name) is not None]
    return Result(
        name=name,
        validations=_validations(history),
        minutes=round((summary["startup_seconds"] + sum(_seconds(e) for e in executions.values())) / 60, 4),
        mean_iou=round(scores["mean_iou"], 4),
        small_objects=round(sum(small) / len(small), 4) if len(small) == len(SMALL_OBJECT_CLASSES) else None,
    )


def check_whole(root: str) -> None:
    """Checks that the newest run executed every component itself.

    Raises:
        UsageError: a component was cached, so the run's duration is not that of the recipe.
    """
    _, executions = newest_training(root)
    cached = [node for node, execution in executions.items() if execution.state == "cached"]
    if cached:
        raise UsageError(
            f"{root}: found a run that took {', '.join(cached)} from the cache, expected one that ran every component, "
            "because the table has the duration of the whole run; run it in a new work directory"
        )


def keep(results: list[Result], path: str) -> list[Result]:
    """Adds results to a file, replaces those of the same name, and returns all results in the file.

    Raises:
        UsageError: the file is not one that this function wrote.
    """
    kept: dict[str, Result] = {}
    if os.path.exists(path):
        with open(path) as file:
            try:
                kept = {entry["name"]: _from_dict(entry) for entry in json.load(file)}
            except (ValueError, TypeError, KeyError) as error:
                raise UsageError(
                    f"--results {path}: cannot be read ({error!r}), expected results of this command. Delete the file, "
                    "or name another"
                ) from None
    kept.update({result.name: result for result in results})
    lines = [json.dumps(dataclasses.asdict(result)) for result in kept.values()]
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")
    return list(kept.values())


def table(results: list[Result]) -> str:
    """Returns a table of the results, best first."""
    lines = [f"{'recipe':48}{'mean IoU':>10}{'small':>8}{'minutes':>10}"]
    for result in sorted(results, key=lambda result: -result.mean_iou):
        small = "" if result.small_objects is None else f"{result.small_objects:.3f}"
        lines.append(f"{result.name:48}{result.mean_iou:10.3f}{small:>8}{result.minutes:10.1f}")
    return "\n".join(lines)


def draw(results: list[Result], path: str) -> None:
    """Writes the picture; the extension of `path` selects the format."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    colors = pyplot.colormaps["tab20"](range(20))
    # tab20 alternates saturated and light colours; use the saturated ones first.
    axes.set_prop_cycle(color=[*colors[::2], *colors[1::2]])
    for result in results:
        (line,) = axes.plot(*zip(*result.validations, strict=True), marker="o", markersize=3, label=result.name)
        axes.plot(result.minutes, result.mean_iou, marker="*", markersize=11, color=line.get_color())
    axes.set(xlabel="minutes on two processor cores", ylabel="validation mean IoU", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    # Omit the date, so the same results give the same file.
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def _from_dict(entry: dict[str, Any]) -> Result:
    return Result(**{**entry, "validations": tuple((minutes, score) for minutes, score in entry["validations"])})


def _validations(history: list[dict[str, float | None]]) -> tuple[tuple[float, float], ...]:
    seconds, points = 0.0, []
    for entry in history:
        seconds += entry["seconds"] or 0.0
        score = entry["val_mean_iou"]
        if score is not None:
            points.append((round(seconds / 60, 4), round(score, 4)))
    return tuple(points)


def _seconds(execution: NodeExecution) -> float:
    return max(0.0, execution.ended - execution.started)


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "runs", nargs="*", metavar="NAME=WORKDIR", help="a recipe's name and the work directory of its run"
    )
    parser.add_argument("--results", help="JSON file of results; add those of the given runs")
    parser.add_argument("--picture", help="file to write, such as recipes.svg or recipes.png")
    arguments = parser.parse_args()
    runs = [named(run) for run in arguments.runs]
    for _, root in runs:
        check_whole(root)
    results = [read(name, root) for name, root in runs]
    if arguments.results:
        results = keep(results, arguments.results)
    if not results:
        parser.error("no results: expected NAME=WORKDIR, or --results FILE with results")
    print(table(results))
    if arguments.picture:
        draw(results, arguments.picture)


if __name__ == "__main__":
    main()
