"""Writes the synthetic data set to a folder in the SegNet-Tutorial layout, whole or not at all."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping

from PIL import Image

from components.dataset.synthetic.frame import render
from components.errors import UsageError

DEFAULT_PAIRS: Mapping[str, int] = {"train": 160, "val": 40}
DEFAULT_SIZE = (120, 160)
MANIFEST = "segpipe-synthetic.json"

DRAWING = 1  # to be raised by whoever changes a single pixel, so that older sets are not taken for new ones
LONGEST_SEQUENCE = 500
SMALLEST, LARGEST = 32, 2048
_LABELS = ("annot", "inst")  # what the folders of masks and of instance ids add to the split's name


@dataclasses.dataclass(frozen=True)
class _Pair:
    """One frame to draw and the files it goes to."""

    seed: int
    sequence: int
    frame: int
    size: tuple[int, int]
    image: str
    mask: str
    instances: str


def make(
    destination: str,
    pairs: Mapping[str, int] | None = None,
    size: tuple[int, int] = DEFAULT_SIZE,
    seed: int = 7,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Writes the data set: `<split>/` with images, `<split>annot/` with masks, `<split>inst/` with instance ids.

    Files are called `<sequence>_<frame>.png`. Images are 8-bit RGB, masks 8-bit grey class indices, instance ids 8-bit
    grey, 0 for no instance. The same arguments give the same pixels on every
    machine, however many workers draw them, and the same bytes wherever Pillow compresses alike. No
    sequence is shared between splits.

    Args:
        destination: folder to write; it must not exist, be empty, or hold this very set.
        pairs: number of pairs by split, by default 160 for train and 40 for val.
        size: height and width of images and masks in pixels.
        seed: seed of every random choice, not negative.
        workers: number of processes that draw.
        on_progress: called with the pairs done and the pairs in all, after each pair.

    Returns:
        Whether anything was written: False where this very set was already there.

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
        _make_folders(partial, destination, pairs)
        _draw_all(list(_plan(partial, pairs, size, seed)), workers, on_progress)
        with open(os.path.join(partial, MANIFEST), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2)
        return _publish(partial, destination, manifest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(pairs: Mapping[str, int], size: tuple[int, int], seed: int, workers: int) -> None:
    """Raises UsageError for arguments that cannot be drawn."""
    if not pairs:
        raise UsageError("synthetic data: no split was asked for; name at least one, as in {'train': 160}")
    for split, count in pairs.items():
        if not split or split.startswith(".") or "/" in split or os.sep in split:
            raise UsageError(f"synthetic data: split name {split!r} cannot be a folder name; use one such as 'train'")
        if any(split == other + suffix for other in pairs for suffix in _LABELS):
            raise UsageError(f"synthetic data: split {split!r} would share a folder with masks; rename it")
        if count < 1:
            raise UsageError(f"synthetic data: split {split!r} asks for {count} pairs; ask for at least 1")
    if not all(SMALLEST <= side <= LARGEST for side in size):
        raise UsageError(
            f"synthetic data: size {size[0]}x{size[1]} is out of range; choose {SMALLEST} to {LARGEST} pixels a side"
        )
    if seed < 0:
        raise UsageError(f"synthetic data: seed {seed} is negative; choose 0 or more")
    if workers < 1:
        raise UsageError(f"synthetic data: {workers} workers cannot draw; choose 1 or more")


def _is_there(destination: str, manifest: Mapping[str, object]) -> bool:
    """Tells whether the folder holds this very set; raises UsageError where it holds something else."""
    if not os.path.exists(destination):
        return False
    if not os.path.isdir(destination):
        raise UsageError(
            f"{destination}: expected a folder to write synthetic data to, found a file; name a new folder"
        )
    if not os.listdir(destination):
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


def _make_folders(partial: str, destination: str, splits: Iterable[str]) -> None:
    """Makes the folders to draw into; raises UsageError where they, or what they become later, cannot be made."""
    if os.path.ismount(destination):
        raise UsageError(
            f"{destination}: found a mount point, in whose place no finished set can be put; name a new folder in it"
        )
    try:
        for split in splits:
            for suffix in ("", *_LABELS):
                os.makedirs(os.path.join(partial, split + suffix))
    except OSError as error:
        raise UsageError(
            f"{destination}: cannot make a folder beside it ({error.strerror}), where the set is drawn first; "
            "name a new folder where you may write"
        ) from None


def _publish(partial: str, destination: str, manifest: Mapping[str, object]) -> bool:
    """Moves the finished set into place in one step; whoever comes second keeps the first one's set."""
    try:
        os.replace(partial, destination)
    except OSError:
        if not _is_there(destination, manifest):
            raise
        return False
    return True


def _plan(root: str, pairs: Mapping[str, int], size: tuple[int, int], seed: int) -> Iterator[_Pair]:
    """Yields every pair to draw. The largest split sees at least three streets, as their light differs most."""
    largest = max(pairs, key=lambda split: pairs[split])
    sequence = 0
    for split, count in pairs.items():
        streets = min(max(3 if split == largest else 1, math.ceil(count / LONGEST_SEQUENCE)), count)
        for street in range(streets):
            for frame in range(count * street // streets, count * (street + 1) // streets):
                frame -= count * street // streets
                name = f"Synth{sequence + 1}_{frame:06d}.png"
                paths = (os.path.join(root, split + suffix, name) for suffix in ("", *_LABELS))
                yield _Pair(seed, sequence, frame, size, *paths)
            sequence += 1


def _draw_all(pairs: list[_Pair], workers: int, on_progress: Callable[[int, int], None] | None) -> None:
    """Draws all pairs, here or in a pool of processes."""
    with contextlib.ExitStack() as stack:
        done: Iterator[None] = map(_draw, pairs)
        if workers > 1:
            # A forked child would inherit the locks of whatever threads run here.
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(concurrent.futures.ProcessPoolExecutor(workers, mp_context=context))
            done = pool.map(_draw, pairs, chunksize=16)
        for count, _ in enumerate(done, start=1):
            if on_progress is not None:
                on_progress(count, len(pairs))


def _draw(pair: _Pair) -> None:
    """Draws one pair and writes its files."""
    image, mask, instances = render(pair.seed, pair.sequence, pair.frame, pair.size)
    Image.fromarray(image).save(pair.image, compress_level=3)
    for labels, path in ((mask, pair.mask), (instances, pair.instances)):
        Image.fromarray(labels).save(path, compress_level=6)
