"""Draws validation frames, their masks, and a row of predictions for each trained model.

    python -m benchmarks.gallery --data DATA "FCN-8=work/fcn8" "UNet=work/unet" --picture gallery.png

Each argument selects the newest run of a work directory that trained. Its model is used even if it was not pushed.
"""

from __future__ import annotations

import argparse
import io
import os

import numpy as np
from PIL import Image

from benchmarks.finished_runs import named, newest_training
from components.class_map import ClassMap
from components.dataset.description import DatasetDescription, detect
from components.metrics.confusion import confusion_matrix, decode_mask
from components.metrics.scores import mean_iou
from serving.evaluation import read_sample, split_pairs
from serving.predictor import Predictor

_FRAME_WIDTH_INCHES = 2.2


def read_frames(data: str, description: DatasetDescription, number: int) -> list[tuple[bytes, np.ndarray]]:
    """Returns encoded images and class indices, uint8 [H, W], at even intervals from the validation split."""
    pairs = split_pairs(data, description, "val")
    chosen = (pairs[index] for index in np.linspace(0, len(pairs) - 1, number).round().astype(int))
    samples = [read_sample(data, pair, description) for pair in chosen]
    return [(sample.image, decode_mask(sample.mask)) for sample in samples]


def load(root: str) -> Predictor:
    """Loads the model of a work directory's newest finished training.

    Raises:
        UsageError: no finished run trained.
    """
    _, executions = newest_training(root)
    return Predictor(os.path.join(executions["Trainer"].outputs["model"][0].uri, "Format-Serving"))


def draw(
    frames: list[tuple[bytes, np.ndarray]], rows: dict[str, list[np.ndarray]], class_map: ClassMap, path: str
) -> None:
    """Writes the picture.

    Args:
        frames: encoded images and their class indices.
        rows: predicted class indices of each frame, by model.
        class_map: gives the colours; ignored pixels are black.
        path: file to write; the extension selects the format.
    """
    from matplotlib import pyplot

    height, width = frames[0][1].shape
    size = (_FRAME_WIDTH_INCHES * len(frames), _FRAME_WIDTH_INCHES * height / width * (len(rows) + 2))
    figure, axes = pyplot.subplots(len(rows) + 2, len(frames), figsize=size, squeeze=False, layout="constrained")
    pictures = {
        "frame": [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image, _ in frames],
        "truth": [class_map.colorize(truth) for _, truth in frames],
        **{name: [class_map.colorize(mask) for mask in predicted] for name, predicted in rows.items()},
    }
    for line, (name, row) in zip(axes, pictures.items(), strict=True):
        line[0].set_ylabel(name)
        for cell, picture in zip(line, row, strict=True):
            cell.imshow(picture, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Draws the picture and prints each model's mean IoU on its frames."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR", help="a name and the work directory of its run")
    parser.add_argument("--data", required=True, help="folder of images and masks")
    parser.add_argument("--frames", type=int, default=4, help="validation frames to draw (default: 4)")
    parser.add_argument("--picture", required=True, help="file to write, such as gallery.png")
    arguments = parser.parse_args()
    description = detect(arguments.data).without_instances().without_depth()
    frames = read_frames(arguments.data, description, arguments.frames)
    rows = {}
    for run in arguments.runs:
        name, root = named(run)
        predicted = [prediction.mask for prediction in load(root).predict([image for image, _ in frames])]
        matrices = [
            confusion_matrix(truth, mask, description.class_map.num_classes)
            for (_, truth), mask in zip(frames, predicted, strict=True)
        ]
        rows[name] = predicted
        print(f"{name:32}{mean_iou(np.sum(matrices, axis=0), description.class_map):.3f}", flush=True)
    draw(frames, rows, description.class_map, arguments.picture)


if __name__ == "__main__":
    main()
