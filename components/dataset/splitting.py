"""Splits data by whole sequences, so that no two splits have neighbouring frames.

The same names give the same splits on every machine and in every order of files.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from components.dataset.description import DatasetDescription, HeldOut
from components.dataset.patterns import normalize
from components.errors import UsageError

TRAIN = "train"
HELD_OUT = "held_out"


def split_of_sequences(description: DatasetDescription, names: Sequence[str]) -> dict[str, str]:
    """Returns the split of each sequence in the pairs' names, for a data set without split folders.

    Raises:
        UsageError: a name without a sequence, a sequence without a split, a listed sequence that does not exist, or
            too few sequences.
    """
    counts = _count(description, names)
    if description.split_sequences:
        return _listed_splits(description, counts)
    _check_default_sequences(description, counts, names)
    return assign_sequences(counts, description.split_by_sequence)


def held_out_sequences(description: DatasetDescription, held_out: HeldOut, names: Sequence[str]) -> set[str]:
    """Returns the sequences of a split to hold out: the listed ones, or a choice by a hash of their names.

    Raises:
        UsageError: a name without a sequence, a listed sequence that the split lacks, or no sequence left for the
            split itself.
    """
    counts = _count(description, names)
    found = f"found {len(counts)} sequence(s) in split {held_out.split!r} ({', '.join(sorted(counts)[:10])})"
    listed = {normalize(name) for name in held_out.sequences}
    absent = sorted(listed - set(counts))
    if absent:
        raise UsageError(f"data.held_out_sequences: {absent[0]!r} is not there, {found}; name some of them")
    if len(counts) <= max(1, len(listed)):
        raise UsageError(
            f"data.held_out_fraction or data.held_out_sequences: {found}, expected one to hold out and one to train, "
            "because neighbouring frames of one sequence are nearly the same. Add data from another sequence, or hold "
            "out less"
        )
    if listed:
        return listed
    _check_default_sequences(description, counts, names)
    splits = assign_sequences(counts, {HELD_OUT: held_out.fraction})
    return {sequence for sequence, split in splits.items() if split == HELD_OUT}


def _count(description: DatasetDescription, names: Sequence[str]) -> Counter[str]:
    """Returns the number of pairs by sequence. Raises UsageError if a name has no sequence."""
    sequences = [description.sequence_of(name) for name in names]
    unmatched = sorted(name for name, sequence in zip(names, sequences, strict=True) if sequence is None)
    if unmatched:
        raise UsageError(
            f"{description.name}: sequence: {description.sequence!r} matches nothing in {len(unmatched)} of"
            f" {len(names)} names, such as {unmatched[0]!r}; expected a match in each name. Change the expression in"
            " the data set's description, or set it to (.*) if the images are unrelated"
        )
    return Counter(sequence for sequence in sequences if sequence is not None)


def _check_default_sequences(description: DatasetDescription, counts: Mapping[str, int], names: Sequence[str]) -> None:
    """Raises UsageError if the default expression for sequences finds a different sequence in each name."""
    by_default = description.sequence is None and not description.layout.has_sequence
    if by_default and len(counts) == len(names) > 1:
        raise UsageError(
            f"{description.name}: sequence: each of {len(names)} names, such as {names[0]!r}, is a sequence of its own,"
            " so neighbouring frames could be in different splits; set `sequence` to an expression for the video or"
            " group, or to (.*) if the images are unrelated"
        )


def assign_sequences(counts: Mapping[str, int], fractions: Mapping[str, float]) -> dict[str, str]:
    """Holds out whole sequences for each split, greedily, to approach its fraction of the pairs.

    Splits with larger fractions choose first. Each step takes the sequence that brings the split nearest to its
    fraction, until no sequence brings it nearer. Every split gets at least one sequence, train included. Sequences of
    one size are taken in the order of a hash of their names: the first ones of the alphabet would be a biased sample,
    because similar names often mean similar scenes.

    Args:
        counts: pairs in each sequence.
        fractions: fraction of all pairs that each held-out split should have, 0 to 1.

    Returns:
        The split of every sequence; sequences that are not held out are in `train`.

    Raises:
        UsageError: fewer sequences than splits.
    """
    needed = len(fractions) + 1
    if 0 < len(counts) < needed:
        raise UsageError(
            f"split_by_sequence: found {len(counts)} sequence(s) ({', '.join(sorted(counts))}); expected at least"
            f" {needed}, one for each of train, {', '.join(sorted(fractions))}. A sequence cannot be split: its"
            " neighbouring frames would leak. Add data from another sequence, or give the splits folders of their own"
        )
    splits: dict[str, str] = {}
    free = list(counts)
    order = sorted(fractions, key=lambda split: (-fractions[split], split))
    for position, split in enumerate(order):
        kept_for_others = len(order) - position
        taken = _nearest_sequences(counts, free, fractions[split] * sum(counts.values()), len(free) - kept_for_others)
        splits.update(dict.fromkeys(taken, split))
        free = [sequence for sequence in free if sequence not in splits]
    return {**splits, **dict.fromkeys(free, TRAIN)}


def _nearest_sequences(counts: Mapping[str, int], free: list[str], target: float, most: int) -> list[str]:
    by_size: dict[int, list[str]] = defaultdict(list)
    for sequence in sorted(free, key=_hash):
        by_size[counts[sequence]].append(sequence)
    taken: list[str] = []
    held = 0
    while len(taken) < most:
        size = min((size for size in by_size if by_size[size]), key=lambda size: (abs(held + size - target), size))
        if taken and abs(held + size - target) >= abs(held - target):
            break
        taken.append(by_size[size].pop())
        held += size
    return taken


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def _listed_splits(description: DatasetDescription, counts: Mapping[str, int]) -> dict[str, str]:
    listed = {normalize(name): split for split, names in description.split_sequences.items() for name in names}
    unlisted = sorted(set(counts) - set(listed))
    absent = sorted(set(listed) - set(counts))
    if TRAIN in description.split_sequences and unlisted:
        raise UsageError(
            f"{description.name}: split_sequences: no split lists {', '.join(unlisted)}; expected every sequence in"
            " one split. Add it to one, or leave train out so that it gets the rest"
        )
    if TRAIN not in description.split_sequences and absent and counts:
        near = difflib.get_close_matches(absent[0], unlisted, n=1)
        raise UsageError(
            f"{description.name}: split_sequences: no pair belongs to {', '.join(absent)};"
            f" found {', '.join(sorted(counts))}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return {sequence: listed.get(sequence, TRAIN) for sequence in counts}
