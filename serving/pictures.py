"""Writes predictions as pictures: class indices, coloured masks, overlays with a legend, boxes.

A mask file carries who made it from which image, so a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from components import drawing
from components.class_map import ClassMap
from components.dataset.conversion import as_png
from components.dataset.encoded import BadFileError, Limits
from components.mask_boxes import mask_boxes
from serving.client.results import Description, Refused, Segmentation, Segmenter

_ORIGIN = "segpipe"  # keyword of the text that a mask file carries
_KINDS = ("mask", "color", "overlay")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        path: the image.
        refused: why there are no pictures of it, empty where there are.
        mask: the mask file, None where there is none.
        class_share: each class's share of the pixels by class name.
        confidence: mean over pixels of the winning class's probability, None where the image was refused.
        model: name of the model that answered.
        version: its version.
        kept: whether the pictures were there already, made by this version from this image.
    """

    path: Path
    refused: str = ""
    mask: str | None = None
    class_share: dict[str, float] = dataclasses.field(default_factory=dict)
    confidence: float | None = None
    model: str = ""
    version: int | None = None
    kept: bool = False


def write_pictures(segmenter: Segmenter, paths: Sequence[Path], directory: str) -> Iterator[Outcome]:
    """Predicts images and writes `<name>_mask.png`, `<name>_color.png` and `<name>_overlay.png` for each.

    Args:
        segmenter: the model.
        paths: encoded images. TIFF, BMP and WebP images are sent to the model as PNG, as ExampleGen stores them.
        directory: an existing folder for the pictures.

    Yields:
        What became of each image, as it comes; one that cannot be read does not stop the others.
    """
    folder, names, description = Path(directory), unique_names(paths), segmenter.describe()
    max_pixels = description.details.get("max_pixels", sys.maxsize)
    limits = Limits(max_side=sys.maxsize, min_side=1, max_pixels=max_pixels)
    settled: list[Outcome] = []

    def unanswered() -> Iterator[tuple[tuple[Path, bytes, bytes], bytes]]:
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                settled.append(Outcome(path, f"found {error.strerror}, expected a readable file"))
                continue
            origin = _kept(folder, names[path], data, description)
            if origin is not None:
                settled.append(_outcome(path, folder / f"{names[path]}_mask.png", origin, kept=True))
                continue
            try:
                image = as_png(data, limits, str(path))
            except BadFileError as error:
                action = f". {error.action[:1].upper()}{error.action[1:]}" if error.action else ""
                settled.append(Outcome(path, f"found {error.found}, expected {error.expected}{action}"))
                continue
            yield (path, data, image), image

    for (path, data, image), result in segmenter.segment_all(unanswered()):
        yield from _drained(settled)
        if isinstance(result, Refused):
            yield Outcome(path, result.reason)
        else:
            yield _write(folder, path, names[path], data, image, result)
    yield from _drained(settled)


def write_boxes(
    outcomes: Sequence[Outcome], class_map: ClassMap, names: Sequence[str], least_pixels: int
) -> dict[Path, list[dict[str, Any]]]:
    """Writes `<name>_boxes.json` and `<name>_boxes.png` beside each mask: boxes around its connected areas.

    Args:
        outcomes: what `write_pictures` yielded; those without a mask are left out.
        class_map: the classes of the masks.
        names: the classes that get boxes.
        least_pixels: smaller areas get none.

    Returns:
        The boxes by image, as they are written.
    """
    written = {}
    for outcome in outcomes:
        if outcome.mask is None:
            continue
        with Image.open(outcome.mask) as opened:
            mask = np.asarray(opened)
        found = mask_boxes(mask, [class_map.index(name) for name in names], least_pixels)
        rows = [
            {"class": class_map.names[each.index], "box": each.box, "pixels": each.pixels, "fill": round(each.fill, 4)}
            for each in found
        ]
        stem = outcome.mask.removesuffix("_mask.png")
        Path(f"{stem}_boxes.json").write_text(json.dumps(rows, indent=2))
        picture = Image.fromarray(drawing.photo(outcome.path.read_bytes()))
        texts = [class_map.names[each.index] for each in found]
        colors = [class_map.colors[each.index] for each in found]
        boxes = np.array([each.box for each in found]).reshape(-1, 4)
        Path(f"{stem}_boxes.png").write_bytes(drawing.png_bytes(drawing.draw_boxes(picture, boxes, texts, colors)))
        written[outcome.path] = rows
    return written


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns a name for what is made of each file: its stem, or where stems repeat its name after its folders.

    Of the folders, as many as it takes; where all of them do not do, a number comes behind.
    """
    parts = {path: Path(os.path.abspath(path)).parts[1:] for path in paths}
    names = {path: path.stem for path in paths}
    for length in range(2, max(map(len, parts.values()), default=0) + 1):
        counts = collections.Counter(names.values())
        repeated = {path for path, name in names.items() if counts[name] > 1}
        names |= {path: "_".join(parts[path][-length:]).replace(".", "_") for path in repeated}
    unique: dict[str, Path] = {}
    for path, name in names.items():
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        unique[next(each for each in itertools.chain([name], numbered) if each not in unique)] = path
    return {path: name for name, path in unique.items()}


def _drained(outcomes: list[Outcome]) -> list[Outcome]:
    """Empties a list and returns what it held."""
    held = outcomes.copy()
    outcomes.clear()
    return held


def _write(folder: Path, path: Path, name: str, data: bytes, image: bytes, result: Segmentation) -> Outcome:
    """Writes the pictures of an image, given its file's data and what the model was sent."""
    try:
        pixels = drawing.photo(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # the model was more lenient
        return Outcome(path, f"found {error}, expected a sound PNG or JPEG image")
    sheet = drawing.prediction_sheet(pixels, result.class_map, result.legend)
    mask, part = folder / f"{name}_mask.png", folder / f".{name}_mask.png.part"
    # It is last and appears at once, and an older one goes first: where it is, the others are whole and its own.
    mask.unlink(missing_ok=True)
    (folder / f"{name}_color.png").write_bytes(drawing.png_bytes(result.legend.colorize(result.class_map)))
    (folder / f"{name}_overlay.png").write_bytes(drawing.png_bytes(sheet))
    origin = {
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "model": result.model,
        "version": result.version,
        "class_share": result.class_share,
        "confidence": result.confidence,
    }
    text = PngInfo()
    text.add_text(_ORIGIN, json.dumps(origin))
    Image.fromarray(result.class_map).save(part, "PNG", pnginfo=text)
    os.replace(part, mask)
    return _outcome(path, mask, origin, kept=False)


def _kept(folder: Path, name: str, data: bytes, description: Description) -> dict[str, Any] | None:
    """Returns the origin of an image's pictures, where the model that answers now made them all."""
    if description.version is None or not all((folder / f"{name}_{kind}.png").is_file() for kind in _KINDS):
        return None
    try:
        with Image.open(folder / f"{name}_mask.png") as mask:
            origin = json.loads(mask.info[_ORIGIN])
        made = (origin["image_sha256"], origin["model"], origin["version"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return origin if made == (hashlib.sha256(data).hexdigest(), description.model, description.version) else None


def _outcome(path: Path, mask: Path, origin: dict[str, Any], kept: bool) -> Outcome:
    told = {name: origin[name] for name in ("class_share", "confidence", "model", "version")}
    return Outcome(path, mask=str(mask), kept=kept, **told)
