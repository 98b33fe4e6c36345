"""Reads the instances of a pair from a mask of instance ids, from COCO's annotations, or from the mask itself."""

from __future__ import annotations

import functools
import json
import os
import threading

import numpy as np

from components import files
from components.annotations import coco
from components.annotations.entries import BadAnnotationError
from components.annotations.regions import full_mask
from components.dataset import masks
from components.dataset.description import DatasetDescription
from components.dataset.encoded import BadFileError, Limits, decode
from components.dataset.pairs import BAD_ANNOTATION, EMPTY_INSTANCE, LABEL_OUTSIDE_MAP, SIZE_MISMATCH, Pair
from components.instances import Instances

_PARSING = threading.Lock()


def read(
    root: str, pair: Pair, indices: np.ndarray | None, description: DatasetDescription, limits: Limits
) -> tuple[Instances, bytes]:
    """Reads the instances of a pair.

    `indices` is the class of each pixel of its mask, uint8 [H, W]; None if it has no mask.

    Returns:
        The instances, and the part of their file that describes them, b"" without a file. Without a mask, instances of
        all classes and not only of things.

    Raises:
        BadFileError: the instances cannot be used.
        OSError: the file cannot be read.
        SegpipeError: the disk or the store cannot read the file; see `files.read_data_file`.
    """
    if indices is not None and not description.things:
        return Instances.stack([], indices.shape), b""
    if description.layout.has_coco:
        return of_coco(parsed(root, pair.instances), pair.image, indices, description)
    assert indices is not None  # the layout has masks, because it has no COCO annotations
    if not pair.instances:
        return of_components(indices, description), b""
    data = files.read_data_file(files.join(root, pair.instances))
    return of_ids(data, indices, description, limits), data


def of_components(indices: np.ndarray, description: DatasetDescription) -> Instances:
    """Returns the connected components of each thing's pixels in a mask, uint8 [H, W].

    Pixels are connected by their sides and corners.
    """
    from scipy import ndimage

    found = []
    for index in description.thing_indices:
        labels, count = ndimage.label(indices == index, structure=np.ones((3, 3)))
        found += [(labels == label, index, False) for label in range(1, count + 1)]
    return Instances.stack(found, indices.shape)


def of_ids(data: bytes, indices: np.ndarray, description: DatasetDescription, limits: Limits) -> Instances:
    """Reads a PNG of instance ids, of 8 or 16 bits; `indices` is the class of each pixel, uint8 [H, W].

    With `instance_id_divisor`, the ids are Cityscapes': json2instanceImg.py of github.com/mcordts/cityscapesScripts,
    commit 324df1e. Otherwise id 0 is not an instance, and neither is an id most of whose pixels are ignored in the
    mask, such as Pascal VOC's 255.

    Raises:
        BadFileError: the PNG cannot be read, has another size than the mask, or an id of an unknown class.
    """
    ids = masks.stored_values(decode(data, limits, ("PNG",)), data)
    _check_size(ids.shape[::-1], indices.shape[::-1])
    divisor, ignore = description.instance_id_divisor, description.class_map.ignore_index
    index_of_value = description.index_of_value()

    def class_of(value: int, mask: np.ndarray) -> int | None:
        if divisor:
            rest = ignore if description.unnamed == "ignore" else None
            return index_of_value.get(value // divisor if value >= divisor else value, rest)
        return int(np.bincount(indices[mask]).argmax())

    found = []
    for value in map(int, np.unique(ids if divisor else ids[ids > 0])):
        mask = ids == value
        index = class_of(value, mask)
        if index in description.thing_indices:
            found.append((mask, index, value < (divisor or 0)))
        elif index is None or not (divisor or index == ignore):
            raise BadFileError(
                LABEL_OUTSIDE_MAP,
                f"the instance id {value} of {'no class' if index is None else description.classes[index].name}",
                f"ids of things: {', '.join(description.things)}",
                "correct the id, or the description's `things` and `instance_id_divisor`",
            )
    return Instances.stack(found, indices.shape)


def of_coco(
    annotations: coco.Annotations, path: str, indices: np.ndarray | None, description: DatasetDescription
) -> tuple[Instances, bytes]:
    """Returns the instances of an image in COCO's annotations, of things and of other classes, and their JSON.

    The classes have the names of the categories. `path` is the image's path below the data root, and `indices` the
    class of each pixel, uint8 [H, W]; None without a mask.

    Raises:
        BadFileError: an annotation cannot be read, a class is unknown, or an instance has no pixel.
    """
    names = description.class_map.names
    try:
        size, raw = annotations.of(path)
        if indices is not None:
            _check_size(size[::-1], indices.shape[::-1])
        shapes = annotations.shapes(path, size)
    except BadAnnotationError as error:
        raise _bad_annotation(error) from None
    found = []
    for shape in shapes:
        if shape.label not in names:
            if description.unnamed == "ignore":
                continue
            raise BadFileError(
                LABEL_OUTSIDE_MAP,
                f"the category {shape.label!r}",
                f"the names of classes: {', '.join(names)}",
                "add a class of this name, or set `unnamed: ignore` in segpipe.yaml to leave out its instances",
            )
        mask = full_mask(size, shape.region)
        if not mask.any():
            raise BadFileError(
                EMPTY_INSTANCE, f"an instance of {shape.label} without a pixel of the image", "at least one pixel"
            )
        found.append((mask, names.index(shape.label), shape.crowd))
    return Instances.stack(found, size), json.dumps(raw, sort_keys=True).encode()


def of_things(instances: Instances, description: DatasetDescription) -> Instances:
    """Returns the instances of things; those below `min_instance_pixels` become crowds."""
    kept = np.isin(instances.classes, description.thing_indices)
    small = instances.masks.sum(axis=(1, 2)) < description.min_instance_pixels
    return Instances(instances.masks[kept], instances.classes[kept], (instances.crowd | small)[kept])


def drawn(instances: Instances, description: DatasetDescription) -> np.ndarray:
    """Draws instances as a mask: class indices, uint8 [H, W].

    Smaller instances cover larger ones, as in imported data sets. Pixels of crowds get the ignored class, if there is
    one, and pixels without an instance the background's class.
    """
    ignore = description.class_map.ignore_index
    mask = np.full(instances.masks.shape[1:], description.background_index, np.uint8)
    for number in np.argsort(-instances.masks.sum(axis=(1, 2)), kind="stable"):
        crowd = instances.crowd[number] and ignore is not None
        mask[instances.masks[number]] = ignore if crowd else instances.classes[number]
    return mask


def parsed(root: str, path: str) -> coco.Annotations:
    """Returns the annotations of a file; cached, because one file may hold a whole split.

    Raises:
        OSError: the file cannot be read.
        BadFileError: the file does not hold annotations.
    """
    address = files.join(root, path)
    changed = 0 if files.is_remote(address) else os.stat(address).st_mtime_ns
    try:
        with _PARSING:
            return _parsed(address, path, changed)
    except BadAnnotationError as error:
        raise _bad_annotation(error) from None


@functools.lru_cache(maxsize=4)
def _parsed(address: str, path: str, changed: int) -> coco.Annotations:
    del changed  # part of the cache's key
    return coco.parse(files.read_data_file(address), path)


def _check_size(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise BadFileError(
            SIZE_MISMATCH,
            f"instances of {found[0]}x{found[1]} pixels",
            f"the mask's {expected[0]}x{expected[1]} pixels",
            "give mask and instances the same size, resizing without interpolation",
        )


def _bad_annotation(error: BadAnnotationError) -> BadFileError:
    """Splits a message "FOUND; expected EXPECTED. ACTION" into the parts of a BadFileError."""
    found, _, rest = str(error).partition("; expected ")
    expected, _, action = rest.rpartition(". ")
    return BadFileError(BAD_ANNOTATION, found.replace(": found", ":"), expected, action[:1].lower() + action[1:])
