"""Writes predictions as pictures: class indices, coloured masks, overlays with a legend."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from components import drawing
from serving.predictor import Prediction, Predictor, batches

Track = Callable[[Iterable[list[Path]], int], Iterable[list[Path]]]


def write_pictures(
    predictor: Predictor, paths: Sequence[Path], directory: str, batch_size: int, track: Track
) -> list[tuple[Path, str]]:
    """Predicts images and writes `<name>_mask.png`, `<name>_color.png` and `<name>_overlay.png` for each.

    Args:
        predictor: the model.
        paths: encoded images.
        directory: an existing folder for the pictures.
        batch_size: images at a time.
        track: wraps the batches to show progress.

    Returns:
        The images that could not be read, each with the reason; the others are written all the same.
    """
    failures: list[tuple[Path, str]] = []
    names = _unique_names(paths)
    groups = list(batches(paths, batch_size))
    for group in track(groups, len(groups)):
        readable: list[tuple[Path, bytes, np.ndarray]] = []
        for path in group:
            try:
                data = path.read_bytes()
                readable.append((path, data, _decode(data)))
            except (OSError, SyntaxError, Image.DecompressionBombError) as error:
                found = "bytes of no known kind" if isinstance(error, UnidentifiedImageError) else str(error)
                failures.append((path, f"found {found}, expected a sound PNG or JPEG image"))
        if readable:
            predictions = predictor.predict([data for _, data, _ in readable])
            for (path, _, pixels), prediction in zip(readable, predictions, strict=True):
                _write(Path(directory), names[path], pixels, prediction, predictor)
    return failures


def _decode(data: bytes) -> np.ndarray:
    """Returns an encoded image's pixels, uint8 [H, W, 3]. Raises OSError or SyntaxError for a broken one."""
    image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    return np.asarray(image.convert("RGB"))


def _write(directory: Path, name: str, pixels: np.ndarray, prediction: Prediction, predictor: Predictor) -> None:
    class_map = predictor.class_map
    sheet = drawing.prediction_sheet(pixels, prediction.mask, class_map)
    for suffix, picture in (
        ("mask", prediction.mask),
        ("color", class_map.colorize(prediction.mask)),
        ("overlay", sheet),
    ):
        (directory / f"{name}_{suffix}.png").write_bytes(drawing.png_bytes(picture))


def _unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns a name for each image's pictures: its stem, with its folder where stems repeat."""
    stems = [path.stem for path in paths]
    return {
        path: path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}_{path.name.replace('.', '_')}"
        for path in paths
    }
