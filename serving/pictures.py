"""Writes predictions as files: class indices, coloured masks, overlays with a legend, boxes, instances as JSON.

The last file of an image records which model made it from which image, so an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
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
from components.instances import encode_runs
from components.mask_boxes import mask_boxes
from serving.client.results import (
    Answer,
    Description,
    InstanceLimits,
    InstanceSegmentation,
    Refused,
    Segmentation,
    Segmenter,
)
from serving.painting import paint

_ORIGIN = "segpipe"  # keyword of the text chunk in a mask file
_SEMANTIC = ("color.png", "overlay.png", "mask.png")
_INSTANCES = ("overlay.png", "instances.json")
_RESULT_KEYS = ("class_share", "confidence", "class_count", "model", "version")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result for one image.

    Attributes:
        path: the image.
        refused: why the image has no pictures; empty if it has.
        mask: the mask file; None if the image was refused or the model finds instances.
        instances: the JSON file of instances; None if the image was refused or the model finds no instances.
        class_share: each class's fraction of the pixels by class name.
        class_count: number of instances by class name.
        confidence: mean over pixels of the winning class's probability, or over instances of the score; None if the
            image was refused.
        model: name of the model.
        version: its version.
        kept: whether the pictures existed already, made by this version from this image.
    """

    path: Path
    refused: str = ""
    mask: str | None = None
    instances: str | None = None
    class_share: dict[str, float] = dataclasses.field(default_factory=dict)
    class_count: dict[str, int] = dataclasses.field(default_factory=dict)
    confidence: float | None = None
    model: str = ""
    version: int | None = None
    kept: bool = False


def write_pictures(
    segmenter: Segmenter,
    paths: Sequence[Path],
    directory: str,
    limits: InstanceLimits = InstanceLimits(),  # noqa: B008
) -> Iterator[Outcome]:
    """Predicts images and writes `<name>_mask.png`, `<name>_color.png` and `<name>_overlay.png` for each.

    A model with depth also writes `<name>_depth.png`. A model of instances writes `<name>_overlay.png` and
    `<name>_instances.json` instead.

    Args:
        segmenter: the model.
        paths: encoded images. TIFF, BMP and WebP images are sent to the model as PNG, as ExampleGen stores them.
        directory: an existing folder for the pictures.
        limits: the model's limits on instances; files made with other limits are replaced.

    Yields:
        One outcome per image, not in the order of the paths. An unreadable image does not stop the others.
    """
    folder, names, description = Path(directory), unique_names(paths), segmenter.describe()
    max_pixels = description.details.get("max_pixels", sys.maxsize)
    sizes = Limits(max_side=sys.maxsize, min_side=1, max_pixels=max_pixels)
    finished: list[Outcome] = []  # without asking the model

    def requests() -> Iterator[tuple[tuple[Path, bytes, bytes], bytes]]:
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                finished.append(Outcome(path, f"found {error.strerror}, expected a readable file"))
                continue
            origin = _origin(data, description.model, description.version, limits)
            kept = _kept(folder, names[path], origin, description)
            if kept is not None:
                finished.append(_outcome(path, folder, names[path], kept, kept=True))
                continue
            try:
                image = as_png(data, sizes, str(path))
            except BadFileError as error:
                action = f". {error.action[:1].upper()}{error.action[1:]}" if error.action else ""
                finished.append(Outcome(path, f"found {error.found}, expected {error.expected}{action}"))
                continue
            yield (path, data, image), image

    for (path, data, image), result in segmenter.segment_all(requests()):
        while finished:
            yield finished.pop(0)
        if isinstance(result, Refused):
            yield Outcome(path, result.reason)
        else:
            origin = _origin(data, result.model, result.version, limits)
            yield _write(folder, path, names[path], origin, image, result)
    yield from finished


def write_boxes(
    outcomes: Sequence[Outcome], class_map: ClassMap, names: Sequence[str], least_pixels: int
) -> dict[Path, list[dict[str, Any]]]:
    """Writes `<name>_boxes.json` and `<name>_boxes.png` beside each mask: boxes around its connected areas.

    Args:
        outcomes: from `write_pictures`; those without a mask are skipped.
        class_map: the classes of the masks.
        names: the classes to draw boxes for.
        least_pixels: smaller areas are skipped.

    Returns:
        The content of the JSON file by image.
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
    """Returns a unique name for the outputs of each file: its stem, preceded by its folders if stems repeat.

    Uses as few folders as possible, and appends a number if all of them are not enough.
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


def _origin(data: bytes, model: str, version: int | None, limits: InstanceLimits) -> dict[str, Any]:
    """Returns everything that determines the files of an image."""
    return {
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "model": model,
        "version": version,
        "limits": dataclasses.asdict(limits) if limits else None,
    }


def _write(folder: Path, path: Path, name: str, origin: dict[str, Any], image: bytes, result: Answer) -> Outcome:
    """Writes the files of an image, given as it was sent to the model."""
    try:
        pixels = drawing.photo(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # the model is more lenient
        return Outcome(path, f"found {error}, expected a valid PNG or JPEG image")
    record: dict[str, Any] = {**origin, "class_share": result.class_share, "confidence": result.confidence}
    if isinstance(result, InstanceSegmentation):
        record["class_count"] = result.class_count
        files = _instance_files(pixels, result, record)
    else:
        files = _mask_files(pixels, result, record)
    # The last file appears atomically, after its predecessor is removed: if it exists, the others are complete.
    *others, (last, content) = files.items()
    target, part = folder / f"{name}_{last}", folder / f".{name}_{last}.part"
    target.unlink(missing_ok=True)
    for kind, each in others:
        (folder / f"{name}_{kind}").write_bytes(each)
    part.write_bytes(content)
    os.replace(part, target)
    return _outcome(path, folder, name, record, kept=False)


def _mask_files(pixels: np.ndarray, result: Segmentation, record: dict[str, Any]) -> dict[str, bytes]:
    text, mask = PngInfo(), io.BytesIO()
    text.add_text(_ORIGIN, json.dumps(record))
    Image.fromarray(result.class_map).save(mask, "PNG", pnginfo=text)
    color = drawing.png_bytes(result.legend.colorize(result.class_map))
    sheet = drawing.png_bytes(drawing.prediction_sheet(pixels, result.class_map, result.legend))
    depth = {"depth.png": result.depth_png} if result.depth_png else {}
    return {**depth, **dict(zip(_SEMANTIC, (color, sheet, mask.getvalue()), strict=True))}


def _instance_files(pixels: np.ndarray, result: InstanceSegmentation, record: dict[str, Any]) -> dict[str, bytes]:
    height, width = pixels.shape[:2]
    found = zip(result.names, result.boxes.tolist(), result.scores.tolist(), result.masks, strict=True)
    rows = [
        {
            "class": name,
            "score": round(score, 4),
            "box": [round(edge, 2) for edge in box],
            # COCO's format of crowds; pycocotools reads it with `frPyObjects`.
            "segmentation": {"size": [height, width], "counts": encode_runs(mask[np.newaxis])[1].tolist()},
        }
        for name, box, score, mask in found
    ]
    overlay = drawing.png_bytes(paint(pixels, result))
    return dict(zip(_INSTANCES, (overlay, json.dumps({**record, "instances": rows}).encode()), strict=True))


def _kept(folder: Path, name: str, origin: dict[str, Any], description: Description) -> dict[str, Any] | None:
    """Returns the record in the files of an image, or None unless all files exist and have this origin."""
    kinds = _INSTANCES if description.finds_instances else _SEMANTIC
    if description.version is None or not all((folder / f"{name}_{kind}").is_file() for kind in kinds):
        return None
    path = folder / f"{name}_{kinds[-1]}"
    try:
        if description.finds_instances:
            record = json.loads(path.read_bytes())
        else:
            with Image.open(path) as mask:
                record = json.loads(mask.info[_ORIGIN])
        found = {key: record.get(key) for key in origin}
    except (OSError, AttributeError, KeyError, ValueError):
        return None
    return record if found == origin else None


def _outcome(path: Path, folder: Path, name: str, record: dict[str, Any], kept: bool) -> Outcome:
    """Returns the outcome of an image whose files exist."""
    own = {key: record[key] for key in _RESULT_KEYS if key in record}
    if "class_count" in record:
        return Outcome(path, instances=str(folder / f"{name}_{_INSTANCES[-1]}"), kept=kept, **own)
    return Outcome(path, mask=str(folder / f"{name}_{_SEMANTIC[-1]}"), kept=kept, **own)
