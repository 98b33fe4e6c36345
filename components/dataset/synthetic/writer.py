"""Writes the synthetic data set to a folder in the SegNet-Tutorial layout, whole or not at all."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping

from PIL import Image

from components.dataset.synthetic.scene import render
from components.errors import UsageError

DEFAULT_PAIRS: Mapping[str, int] = {"train": 160, "val": 40}
DEFAULT_SIZE = (120, 160)
MANIFEST = "segpipe-synthetic.json"

DRAWING = 2  # raise it with every change of a pixel, so that an older set is not mistaken for a new one
LONGEST_SEQUENCE = 500
SMALLEST, LARGEST = 32, 2048
_SUFFIXES = ("", "annot", "inst", "depth")  # what the folder of each of a frame's pictures adds to the split's name
_Planned = tuple[str, int, int]  # split, sequence and frame


def make(
    destination: str,
    pairs: Mapping[str, int] | None = None,
    size: tuple[int, int] = DEFAULT_SIZE,
    seed: int = 7,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Writes images to `<split>/`, masks to `<split>annot/`, instances to `<split>inst/`, depth to `<split>depth/`.

    Files are called `<sequence>_<frame>.png` and hold what `Frame` says. The same arguments give the same pixels on
    every machine, however many workers draw them. No sequence is shared between splits.

    Args:
        destination: folder to write; it must not exist, be empty, or hold this very set.
        pairs: number of pairs by split.
        size: height and width in pixels.
        seed: seed of every random choice, not negative.
        workers: number of processes that draw.
        on_progress: called with the pairs done and the pairs in all, after each pair.

    Returns:
        Whether anything was written: False if this very set was already there.

    Raises:
        UsageError: an argument is out of range, or the folder holds something else.
    """
    pairs = dict(DEFAULT_PAIRS if pairs is None else pairs)
    _check(pairs, size, seed, workers)
    destination = os.path.realpath(destination)
    manifest = {"drawing": DRAWING, "seed": seed, "size": list(size), "pairs": [list(pair) for pair in pairs.items()]}
    if _is_there(destination, manifest):
        return False
    partial = os.path.join(os.path.dirname(destination), f".{os.path.basename(destination)}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        try:
            for split, suffix in itertools.product(pairs, _SUFFIXES):
                os.makedirs(os.path.join(partial, split + suffix))
        except OSError as error:
            raise UsageError(
                f"{destination}: cannot make a folder beside it ({error.strerror}), where the set is drawn first; "
                "name a new folder where you may write"
            ) from None
        planned = list(_plan(pairs))
        for done, _ in enumerate(_each(functools.partial(_draw, partial, seed, size), planned, workers), start=1):
            if on_progress is not None:
                on_progress(done, len(planned))
        with open(os.path.join(partial, MANIFEST), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2)
        try:
            os.replace(partial, destination)
        except OSError:
            if not _is_there(destination, manifest):
                raise
            return False  # another process was first
        return True
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(pairs: Mapping[str, int], size: tuple[int, int], seed: int, workers: int) -> None:
    """Raises UsageError for arguments that cannot be drawn."""
    problems = [(not pairs, "no split was asked for; name at least one, as in {'train': 160}")]
    for split, count in pairs.items():
        unsafe = not split or split.startswith(".") or "/" in split or os.sep in split
        shared = any(split == other + suffix for other in pairs for suffix in _SUFFIXES[1:])
        problems += [
            (unsafe, f"split name {split!r} cannot be a folder name; use one such as 'train'"),
            (shared, f"split {split!r} would share a folder with another's labels; rename it"),
            (count < 1, f"split {split!r} asks for {count} pairs; ask for at least 1"),
        ]
    fits = all(SMALLEST <= side <= LARGEST for side in size)
    problems += [
        (not fits, f"size {size[0]}x{size[1]} is out of range; choose {SMALLEST} to {LARGEST} pixels a side"),
        (seed < 0, f"seed {seed} is negative; choose 0 or more"),
        (workers < 1, f"{workers} workers cannot draw; choose 1 or more"),
    ]
    for found, problem in problems:
        if found:
            raise UsageError(f"synthetic data: {problem}")


def _is_there(destination: str, manifest: Mapping[str, object]) -> bool:
    """Tells whether the folder holds this very set; raises UsageError if it cannot become that."""
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
        raise UsageError(
            f"{destination}: the folder is not empty and no synthetic data set ({MANIFEST} is missing or unreadable);"
            " name a new folder, nothing was overwritten"
        ) from None
    if found != manifest:
        raise UsageError(
            f"{destination}: the folder holds another synthetic data set, {json.dumps(found)}, not the one asked for,"
            f" {json.dumps(manifest)}; name a new folder or remove this one"
        )
    return True


def _plan(pairs: Mapping[str, int]) -> Iterator[_Planned]:
    """Yields split, sequence and frame of each pair. The largest split has at least three streets, as light differs."""
    largest = max(pairs, key=lambda split: pairs[split])
    sequence = 0
    for split, count in pairs.items():
        streets = min(max(3 if split == largest else 1, math.ceil(count / LONGEST_SEQUENCE)), count)
        for street in range(streets):
            for frame in range(count * (street + 1) // streets - count * street // streets):
                yield split, sequence, frame
            sequence += 1


def _each(draw: Callable[[_Planned], None], planned: list[_Planned], workers: int) -> Iterator[None]:
    """Draws all pairs, here or in a pool of processes."""
    if workers == 1:
        yield from map(draw, planned)
    else:
        # A forked child would inherit the locks of whatever threads run here.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
            yield from pool.map(draw, planned, chunksize=16)


def _draw(root: str, seed: int, size: tuple[int, int], planned: _Planned) -> None:
    """Draws one pair and writes its files."""
    split, sequence, frame = planned
    for suffix, pixels in zip(_SUFFIXES, render(seed, sequence, frame, size), strict=True):
        path = os.path.join(root, split + suffix, f"Synth{sequence + 1}_{frame:06d}.png")
        Image.fromarray(pixels).save(path, compress_level=6 if suffix else 3)
