"""What recipes gave for their minutes: draws the validation scores of finished runs over the time they took.

    python -m benchmarks.recipes "fcn8, preset cpu=work/fcn8" "unet, preset cpu=work/unet" --picture recipes.svg

Each argument names the newest run of a work directory that trained. A line joins the validations of the training,
at the network's input size; the star is the evaluation of the exported model, at the masks' own size,
drawn where the whole run ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os

from benchmarks.finished_runs import named, newest_training
from pipeline.store import NodeExecution

# Thin or small in a street scene, and so the hardest; see the published tables.
THIN_CLASSES = ("column_pole", "traffic_light", "pedestrian", "bicyclist")


@dataclasses.dataclass(frozen=True)
class Result:
    """What one run gave.

    Attributes:
        name: the recipe's name.
        validations: minutes since the training began, and mean IoU, of each validation.
        minutes: of the whole run, from folder to pushed model.
        trained: minutes of the Trainer alone.
        mean_iou: of the exported model.
        thin: mean IoU of `THIN_CLASSES`; None where the data set has not all of them.
    """

    name: str
    validations: tuple[tuple[float, float], ...]
    minutes: float
    trained: float
    mean_iou: float
    thin: float | None


def read(name: str, root: str) -> Result:
    """Reads the newest run of a work directory that trained and came to its end.

    Raises:
        UsageError: where there is none.
    """
    summary, executions = newest_training(root)
    with open(os.path.join(executions["Trainer"].outputs["model_run"][0].uri, "history.json")) as file:
        history = json.load(file)
    class_iou = summary["metrics"]["class_iou"]
    thin = [class_iou[name] for name in THIN_CLASSES if class_iou.get(name) is not None]
    return Result(
        name=name,
        validations=_validations(history),
        minutes=(summary["startup_seconds"] + sum(_seconds(e) for e in executions.values())) / 60,
        trained=_seconds(executions["Trainer"]) / 60,
        mean_iou=summary["metrics"]["mean_iou"],
        thin=sum(thin) / len(thin) if len(thin) == len(THIN_CLASSES) else None,
    )


def table(results: list[Result]) -> str:
    """Lays the runs out, best first."""
    lines = [f"{'recipe':48}{'mean IoU':>10}{'thin':>8}{'minutes':>10}{'training':>10}"]
    for result in sorted(results, key=lambda result: -result.mean_iou):
        thin = "" if result.thin is None else f"{result.thin:.3f}"
        lines.append(f"{result.name:48}{result.mean_iou:10.3f}{thin:>8}{result.minutes:10.1f}{result.trained:10.1f}")
    return "\n".join(lines)


def draw(results: list[Result], path: str) -> None:
    """Writes the picture; the ending of its name chooses the format."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for result in results:
        (line,) = axes.plot(*zip(*result.validations, strict=True), marker="o", markersize=3, label=result.name)
        axes.plot(result.minutes, result.mean_iou, marker="*", markersize=11, color=line.get_color())
    axes.set(xlabel="minutes on two processor cores", ylabel="validation mean IoU", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    # Without the date, the same results give the same file.
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def _validations(history: list[dict[str, float | None]]) -> tuple[tuple[float, float], ...]:
    seconds, points = 0.0, []
    for entry in history:
        seconds += entry["seconds"] or 0.0
        score = entry["val_mean_iou"]
        if score is not None:
            points.append((seconds / 60, score))
    return tuple(points)


def _seconds(execution: NodeExecution) -> float:
    return max(0.0, execution.ended - execution.started)


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR", help="a recipe's name and its run's work directory")
    parser.add_argument("--picture", help="file to draw, .svg or .png")
    arguments = parser.parse_args()
    results = []
    for run in arguments.runs:
        results.append(read(*named(run)))
    print(table(results))
    if arguments.picture:
        draw(results, arguments.picture)


if __name__ == "__main__":
    main()
