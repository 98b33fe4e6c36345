"""Sequences are in one split, splits are reproducible, and fractions are met as closely as sequences allow."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.dataset.description import DatasetDescription
from components.dataset.splitting import assign_sequences, split_of_sequences
from components.errors import UsageError

counts_strategy = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4), st.integers(1, 300), min_size=3, max_size=9
)


def names_of(counts: dict[str, int]) -> list[str]:
    return [f"{sequence}_{i:05d}" for sequence, count in counts.items() for i in range(count)]


@given(counts_strategy, st.floats(0.05, 0.45), st.floats(0.05, 0.45))
def test_every_sequence_has_one_split_and_every_split_a_sequence(counts, val, test):
    splits = assign_sequences(counts, {"val": val, "test": test})

    assert set(splits) == set(counts)
    assert set(splits.values()) == {"train", "val", "test"}


@given(counts_strategy, st.floats(0.05, 0.6), st.randoms())
def test_order_of_sequences_does_not_matter(counts, fraction, random):
    shuffled = list(counts.items())
    random.shuffle(shuffled)

    assert assign_sequences(dict(shuffled), {"val": fraction}) == assign_sequences(counts, {"val": fraction})


@given(counts_strategy, st.floats(0.05, 0.6))
def test_no_single_change_gets_nearer_unless_it_empties_a_split(counts, fraction):
    splits = assign_sequences(counts, {"val": fraction})
    held_out = {sequence for sequence, split in splits.items() if split == "val"}
    target = fraction * sum(counts.values())

    def distance(sequences):
        return abs(sum(counts[sequence] for sequence in sequences) - target)

    larger = [held_out | {extra} for extra in set(counts) - held_out]
    nearer = [one for one in larger if distance(one) < distance(held_out) and len(one) < len(counts)]
    assert not nearer


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [
        ({"a": 90, "b": 10}, 0.2, {"b"}),
        ({"a": 50, "b": 50}, 0.2, {"a"}),  # of the two, the one with the larger hash
        ({"0006R0": 101, "0001TP": 124, "0016E5": 305, "Seq05VD": 171}, 0.2, {"0001TP"}),
        ({"a": 10, "b": 10, "c": 10, "d": 10, "e": 10}, 0.4, {"a", "e"}),
    ],
)
def test_the_fraction_is_met_as_closely_as_whole_sequences_allow(counts, fraction, expected):
    splits = assign_sequences(counts, {"val": fraction})

    assert {sequence for sequence, split in splits.items() if split == "val"} == expected


def test_one_sequence_cannot_be_split():
    with pytest.raises(UsageError) as raised:
        assign_sequences({"drive": 500}, {"val": 0.2})

    for part in ("1 sequence", "drive", "at least 2", "cannot be split"):
        assert part in str(raised.value)


def test_neighbouring_frames_are_in_one_split(unsplit):
    names = names_of({"a": 30, "b": 10, "c": 12})

    splits = split_of_sequences(unsplit, names)

    assert len(splits) == 3
    for name, other in itertools.pairwise(names):
        if name[0] == other[0]:
            assert splits[unsplit.sequence_of(name)] == splits[unsplit.sequence_of(other)]


def test_names_that_are_each_a_sequence_of_their_own_are_refused(unsplit):
    with pytest.raises(UsageError, match=r"sequence of\s+its own.*`sequence`"):
        split_of_sequences(unsplit, ["img001", "img002", "img003"])


def test_unrelated_images_may_be_split_when_that_is_said(unsplit):
    described = unsplit.model_copy(update={"sequence": "(.*)"})

    splits = split_of_sequences(described, [f"img{i:03d}" for i in range(10)])

    assert list(splits.values()).count("val") == 2


def test_a_held_out_split_of_unrelated_images_is_a_sample_of_all_kinds():
    counts = {f"{kind}_{i}": 1 for kind in ("bedroom", "kitchen", "street") for i in range(1000)}

    splits = assign_sequences(counts, {"val": 0.2})

    held_out = Counter(name.split("_")[0] for name, split in splits.items() if split == "val")
    assert sum(held_out.values()) == 600
    assert min(held_out[kind] for kind in ("bedroom", "kitchen", "street")) > 150


def test_a_name_without_a_sequence_is_named(unsplit):
    described = unsplit.model_copy(update={"sequence": "^(seq[0-9]+)"})

    with pytest.raises(UsageError, match=r"1 of 2 names, such as 'other'"):
        split_of_sequences(described, ["seq1_a", "other"])


def listed(unsplit: DatasetDescription, **sequences: tuple[str, ...]) -> DatasetDescription:
    return unsplit.model_copy(update={"split_by_sequence": {}, "split_sequences": sequences})


def test_listed_sequences_go_where_they_are_listed_and_the_rest_to_train(unsplit):
    splits = split_of_sequences(listed(unsplit, val=("b",)), names_of({"a": 2, "b": 2, "c": 2}))

    assert splits == {"a": "train", "b": "val", "c": "train"}


def test_a_listed_sequence_that_is_not_there_is_refused_with_the_nearest(unsplit):
    with pytest.raises(UsageError, match=r"Seq05VE.*did you mean 'Seq05VD'"):
        split_of_sequences(listed(unsplit, val=("Seq05VE",)), names_of({"0001TP": 2, "Seq05VD": 2}))


def test_a_sequence_no_split_lists_is_refused_if_train_is_listed(unsplit):
    with pytest.raises(UsageError, match="no split lists c"):
        split_of_sequences(listed(unsplit, train=("a",), val=("b",)), names_of({"a": 2, "b": 2, "c": 2}))
