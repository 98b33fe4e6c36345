"""`segpipe evaluate`: score an exported model on any split."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from components.errors import UsageError
from components.tensorflow_start import prepare

if TYPE_CHECKING:
    from components.dataset.checks import Sample
    from components.dataset.description import DatasetDescription
    from components.dataset.encoded import Limits
    from components.dataset.pairs import Pair
    from components.metrics.tally import Tally
    from serving.predictor import Predictor

_BATCH = 8


def evaluate(
    model: Annotated[str, typer.Option(help="Exported model, or a folder of versions (the newest is taken).")],
    data: Annotated[str, typer.Option(help="Folder of images and masks.")],
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    description: Annotated[
        str,
        typer.Option(help="YAML that describes the folder, or the name of a built-in description; auto recognises it."),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score an exported model on any split, with the metrics that the pipeline's gate uses."""
    from components.dataset.description import detect, load
    from serving.predictor import find_version, read_metadata

    read_metadata(find_version(model))
    described = detect(data) if description == "auto" else load(description)
    predictor = load_predictor(model)
    if described.class_map.names != predictor.class_map.names:
        raise UsageError(
            f"--data {data}: found classes {', '.join(described.class_map.names)}; expected the model's, "
            f"{', '.join(predictor.class_map.names)}. Describe the folder with a class map that folds into them"
        )
    tally, frames = _tally(predictor, data, described, split)
    from components.metrics.bootstrap import score_intervals
    from components.metrics.scores import scores

    result, found = scores(tally.matrix, tally.class_map), score_intervals(tally.resamples, tally.class_map)
    intervals = {name: bounds for name, bounds in found.items() if not math.isnan(bounds[0])}
    if as_json:
        about = {"model": predictor.directory, "split": split, "frames": frames}
        print(json.dumps({**about, **result.to_dict(), "intervals": intervals}, indent=2))
        return
    from pipeline.tables import score_table

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{predictor.directory} on {frames} frames of {split}\n", soft_wrap=True)
    console.print(score_table(result, None, predictor.class_map, intervals))
    console.print(f"\npixel accuracy {result.pixel_accuracy:.3f}, mean IoU with void {result.mean_iou_with_void:.3f}")


def load_predictor(model: str) -> Predictor:
    """Loads an exported model and prints which version was taken. Raises UsageError if there is no model."""
    from serving.predictor import Predictor, find_version, read_metadata

    directory = find_version(model)
    read_metadata(directory)  # before the wait for TensorFlow
    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if directory != model:
        console.print(f"model {directory}, the newest version in {model}")
    prepare(quiet=True)
    with console.status("loading TensorFlow and the model"):
        return Predictor(directory)


def _tally(predictor: Predictor, data: str, described: DatasetDescription, split: str) -> tuple[Tally, int]:
    """Returns the sums over a split and the number of frames; holds one batch of images at a time."""
    from components.dataset.encoded import MAX_PIXELS, Limits
    from components.dataset.pairs import find_pairs
    from components.metrics.confusion import confusion_matrix, decode_mask
    from components.metrics.tally import Tally
    from serving.predictor import batches

    pairs, _ = find_pairs(data, described)
    chosen = [pair for pair in pairs if pair.split == split]
    if not chosen:
        known = ", ".join(sorted({pair.split for pair in pairs})) or "none"
        raise UsageError(f"--split {split}: no pair in {data}; splits found: {known}")
    tally = Tally.empty(predictor.class_map)
    limits = Limits(max_pixels=predictor.metadata.get("max_pixels", MAX_PIXELS))
    frames = track(chosen, "scoring", console=Console(stderr=True))
    for batch in batches((_sample(data, pair, described, limits) for pair in frames), _BATCH):
        for sample, prediction in zip(batch, predictor.predict([s.image for s in batch]), strict=True):
            matrix = confusion_matrix(decode_mask(sample.mask), prediction.mask, predictor.class_map.num_classes)
            tally.add(matrix, sample.image, sample.pair.sequence)
    return tally, len(chosen)


def _sample(data: str, pair: Pair, described: DatasetDescription, limits: Limits) -> Sample:
    """Reads one pair. Raises DataRejectedError if it is bad."""
    from components.dataset.checks import Sample, read_pair
    from components.errors import DataRejectedError

    sample = read_pair(data, pair, described, limits)
    if not isinstance(sample, Sample):
        raise DataRejectedError(
            f"{sample.file}: {sample.reason}; found {sample.found}, expected {sample.expected}. {sample.action}"
        )
    return sample
