"""`segpipe evaluate`: score an exported model on any split, or compare two."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from components.errors import UsageError
from components.tensorflow_start import prepare
from pipeline.cli.options import AsJson, Description
from pipeline.cli.outputs import prepare_file
from pipeline.cli.printing import console, print_json, say

if TYPE_CHECKING:
    from serving.evaluation import Evaluation, SplitEvaluation
    from serving.predictor import Predictor


def evaluate(
    model: Annotated[str, typer.Option(help="Exported model, or a folder of versions (the newest is taken).")],
    data: Annotated[str, typer.Option(help="Folder of images and masks.")],
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    description: Description = "auto",
    against: Annotated[
        str | None,
        typer.Option(help="Compare --model with this model on the same images.", show_default="no comparison"),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            help="With --against: also write a page with scores and the images that changed most, as one HTML file.",
            metavar="FILE.html",
            show_default="no page",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score an exported model on any split, with the metrics that the pipeline's gate uses, or compare two models."""
    from components import files
    from components.dataset.description import detect, load

    if report is not None and against is None:
        raise UsageError("--report: found no --against, expected two models to compare; name the other one there")
    if report is not None:
        prepare_file("--report", report)
    options = {"--model": model} if against is None else {"--model": model, "--against": against}
    of_instances = _of_instances(options)
    described = detect(data) if description == "auto" else load(description)
    predictors = [load_predictor(directory, option) for option, directory in options.items()]
    described = described if of_instances else described.without_instances()
    if not any(predictor.metadata.get("depth_scale") for predictor in predictors):
        described = described.without_depth()
    _check_classes(predictors, data, described.class_map.names)

    from serving import evaluation, instance_evaluation

    if of_instances:
        _check_things(predictors, data, described.things)
    pairs = evaluation.split_pairs(data, described, split)
    progress = track(pairs, "scoring", console=Console(stderr=True))
    score = instance_evaluation.evaluate if of_instances else evaluation.evaluate
    result = score(predictors, data, progress, described, split)
    if report is not None:
        from components.report.comparison import render

        files.write_bytes(report, render(result.comparison()).encode(errors="replace"))
        say(f"report in {report}", stderr=True)
    if as_json:
        print_json(result.to_dict())
        return
    _print_scores(result)
    if isinstance(result, evaluation.Evaluation):
        _print_masks(result)
    if against is not None:
        _print_changes(result)


def load_predictor(model: str, option: str = "--model") -> Predictor:
    """Loads an exported model and prints which version was taken. Raises UsageError if there is no model."""
    from serving.predictor import Predictor, find_version, read_metadata

    directory = find_version(model, option)
    read_metadata(directory)  # before the wait for TensorFlow
    if directory != model:
        say(f"model {directory}, the newest version in {model}", stderr=True)
    prepare(quiet=True)
    with console(stderr=True).status("loading TensorFlow and the model"):
        return Predictor(directory)


def _of_instances(models: dict[str, str]) -> bool:
    """Returns whether the models find instances. Raises UsageError if they differ."""
    from serving.predictor import find_version, read_metadata

    tasks = {
        option: read_metadata(find_version(directory, option)).get("task", "semantic")
        for option, directory in models.items()
    }
    if len(set(tasks.values())) > 1:
        found = " and ".join(f"{option} of the task {task}" for option, task in tasks.items())
        raise UsageError(f"--against: found {found}; expected two models of one task. Compare models that do the same")
    return "instance" in tasks.values()


def _check_things(predictors: list[Predictor], data: str, things: tuple[str, ...]) -> None:
    """Raises UsageError unless models and data have the same things."""
    for predictor in predictors:
        expected = tuple(predictor.metadata["things"])
        if things != expected:
            raise UsageError(
                f"--data {data}: found the things {', '.join(things) or 'none'}; expected those of "
                f"{predictor.directory}, {', '.join(expected)}. Name them as `things` in the description"
            )


def _check_classes(predictors: list[Predictor], data: str, names: tuple[str, ...]) -> None:
    """Raises UsageError unless data and models have the same classes."""
    first, *others = (predictor.class_map for predictor in predictors)
    if names != first.names:
        raise UsageError(
            f"--data {data}: found classes {', '.join(names)}; expected the model's, {', '.join(first.names)}. "
            "Describe the folder with a class map that folds into them"
        )
    for other in others:
        if (other.names, other.ignore_index) != (first.names, first.ignore_index):
            raise UsageError(
                f"--against: found a model of the classes {', '.join(other.names)}, of which "
                f"{', '.join(other.scored_names)} are scored; expected those of --model, {', '.join(first.names)}, of "
                f"which {', '.join(first.scored_names)} are scored. Compare models of the same classes"
            )


def _print_scores(result: SplitEvaluation) -> None:
    from pipeline.running.tables import depth_line, score_table

    against = f", against {result.models[1]}" if result.models[1:] else ""
    say(f"{result.models[0]} on {result.frames} frames of {result.split}{against}\n")
    console().print(score_table(result.scores, result.baseline_scores, result.intervals, result.change_intervals))
    for heading, found in (("", result.scores), ("before, ", result.baseline_scores or {})):
        # Without a known pixel in any depth map, the errors are NaN.
        if not math.isnan(found.get("abs_rel", math.nan)):
            say(f"{heading}{depth_line(found)}")


def _print_masks(result: Evaluation) -> None:
    from pipeline.running.tables import sequence_table

    scored = result.scores
    say(f"\npixel accuracy {scored['pixel_accuracy']:.3f}, mean IoU with void {scored['mean_iou_with_void']:.3f}")
    if result.worst_sequences:
        console().print(sequence_table(result.worst_sequences))


def _print_changes(result: SplitEvaluation) -> None:
    from pipeline.running.tables import changed_images_table

    changes = result.changes
    say(f"\n{changes.better} of {result.frames} images got better, {changes.worse} worse")
    for heading, images in (("most improved", changes.improved), ("most worsened", changes.worsened)):
        if images:
            console().print(changed_images_table(heading, images))
