"""`segpipe evaluate`: score an exported model on any split."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from components.errors import UsageError
from components.tensorflow_start import prepare

if TYPE_CHECKING:
    import numpy as np

    from components.dataset.description import DatasetDescription
    from serving.predictor import Predictor

_BATCH = 8


def evaluate(
    model: Annotated[str, typer.Option(help="Exported model, or a folder of versions (the newest is taken).")],
    data: Annotated[str, typer.Option(help="Folder of images and masks.")],
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    description: Annotated[str, typer.Option(help="YAML that describes the folder; auto recognises it.")] = "auto",
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
    matrix, frames = _confusion(predictor, data, described, split)
    from components.metrics.scores import scores

    result = scores(matrix, predictor.class_map)
    if as_json:
        print(
            json.dumps({"model": predictor.directory, "split": split, "frames": frames, **result.to_dict()}, indent=2)
        )
        return
    from pipeline.tables import score_table

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{predictor.directory} on {frames} frames of {split}\n", soft_wrap=True)
    console.print(score_table(result, None, predictor.class_map))
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


def _confusion(predictor: Predictor, data: str, described: DatasetDescription, split: str) -> tuple[np.ndarray, int]:
    """Returns the confusion matrix over a split, int64 [N, N], and the number of frames."""
    import numpy as np

    from components.dataset.checks import Sample, read_pair
    from components.dataset.encoded import MAX_PIXELS, Limits
    from components.dataset.pairs import find_pairs
    from components.errors import DataRejectedError
    from components.metrics.confusion import confusion_matrix, decode_mask
    from serving.predictor import batches

    pairs, _ = find_pairs(data, described)
    chosen = [pair for pair in pairs if pair.split == split]
    if not chosen:
        known = ", ".join(sorted({pair.split for pair in pairs})) or "none"
        raise UsageError(f"--split {split}: no pair in {data}; splits found: {known}")
    num_classes = predictor.class_map.num_classes
    matrix = np.zeros((num_classes, num_classes), np.int64)
    samples = []
    limits = Limits(max_pixels=predictor.metadata.get("max_pixels", MAX_PIXELS))
    for pair in chosen:
        sample = read_pair(data, pair, described, limits)
        if not isinstance(sample, Sample):
            raise DataRejectedError(
                f"{sample.file}: {sample.reason}; found {sample.found}, expected {sample.expected}. {sample.action}"
            )
        samples.append(sample)
    steps = track(list(batches(samples, _BATCH)), "scoring", console=Console(stderr=True))
    for batch in steps:
        for sample, prediction in zip(batch, predictor.predict([s.image for s in batch]), strict=True):
            matrix += confusion_matrix(decode_mask(sample.mask), prediction.mask, num_classes)
    return matrix, len(samples)
