"""Whole sequences leave the training split and become the split `held_out`, or the data set is refused."""

from __future__ import annotations

import pytest

from components.dataset.description import DatasetDescription, HeldOut, detect, parse
from components.dataset.pairs import find_pairs
from components.errors import UsageError

COUNTS = {"0001TP": 3, "0006R0": 2, "0016E5": 5}


@pytest.fixture
def streets(folder):
    """A data set in the SegNet tutorial's layout: three sequences to train on, one of them in val too."""
    for sequence, count in COUNTS.items():
        for frame in range(count):
            folder.pair(f"train/{sequence}_{frame:06}.png", f"trainannot/{sequence}_{frame:06}.png")
    folder.pair("val/0016E5_900000.png", "valannot/0016E5_900000.png")
    return folder


def held_out(root, **settings) -> DatasetDescription:
    return detect(str(root)).model_copy(update={"held_out": HeldOut(**settings)})


def sequences_by_split(pairs) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for pair in pairs:
        splits.setdefault(pair.split, set()).add(pair.sequence)
    return splits


def test_the_sequences_that_come_nearest_to_the_fraction_are_held_out(streets):
    pairs, issues = find_pairs(str(streets.root), held_out(streets.root, fraction=0.3))

    # 3 of the 10 training pairs are those of 0001TP. Validation keeps its own frames.
    assert sequences_by_split(pairs) == {"train": {"0006R0", "0016E5"}, "held_out": {"0001TP"}, "val": {"0016E5"}}
    assert len(pairs) == 11
    assert [(pair.split, pair.name) for pair in pairs] == sorted((pair.split, pair.name) for pair in pairs)
    assert {pair.image.split("/")[0] for pair in pairs if pair.split == "held_out"} == {"train"}
    assert not issues


def test_sequences_can_be_held_out_by_name(streets):
    pairs, _ = find_pairs(str(streets.root), held_out(streets.root, sequences=("0016E5", "0006R0")))

    assert sequences_by_split(pairs) == {"train": {"0001TP"}, "held_out": {"0006R0", "0016E5"}, "val": {"0016E5"}}


def test_a_bad_pair_of_a_held_out_sequence_counts_for_its_split(streets):
    (streets.root / "trainannot/0006R0_000001.png").unlink()

    pairs, (issue,) = find_pairs(str(streets.root), held_out(streets.root, sequences=("0006R0",)))

    assert [pair.name for pair in pairs if pair.split == "held_out"] == ["0006R0_000000"]
    assert (issue.split, issue.name, issue.file) == ("held_out", "0006R0_000001", "train/0006R0_000001.png")
    assert "trainannot/0006R0_000001.png" in issue.action


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sequences": ("0005VD",)},
            "'0005VD' is not there, found 3 sequence.* in split 'train' .0001TP, 0006R0, 0016E5",
        ),
        ({"sequences": tuple(COUNTS)}, "found 3 sequence.*expected one to hold out and one to train"),
    ],
)
def test_sequences_that_cannot_be_held_out_are_refused_with_those_there(streets, settings, message):
    with pytest.raises(UsageError, match=f"data.held_out.*{message}"):
        find_pairs(str(streets.root), held_out(streets.root, **settings))


def test_a_single_sequence_is_not_divided(folder):
    for frame in range(4):
        folder.pair(f"train/0001TP_{frame:06}.png", f"trainannot/0001TP_{frame:06}.png")

    with pytest.raises(UsageError, match=r"found 1 sequence\(s\) in split 'train' \(0001TP\).*Add data from another"):
        find_pairs(str(folder.root), held_out(folder.root, fraction=0.5))


def test_frames_without_sequence_names_are_not_divided(folder):
    for frame in range(4):
        folder.pair(f"train/{frame:06}.png", f"trainannot/{frame:06}.png")

    with pytest.raises(UsageError, match="each of 4 names, such as '000000', is a sequence of its own"):
        find_pairs(str(folder.root), held_out(folder.root, fraction=0.5))


def test_a_split_of_that_name_in_the_data_set_is_not_mixed_with_the_sequences(folder):
    layout = 'layout: {images: "{split}/{name}", masks: "{split}annot/{name}.png"}\n'
    splits = "splits: {train: train, held_out: street}\nheld_out: {fraction: 0.5}\n"
    classes = "classes:\n  - {name: road, color: [0, 0, 0]}\n  - {name: car, color: [255, 0, 0]}\n"
    for name in ("train/a_1", "train/b_1", "street/c_1"):
        folder.pair(f"{name}.png", f"{name.replace('/', 'annot/')}.png")

    with pytest.raises(UsageError, match="the data set has a split 'held_out' already"):
        find_pairs(str(folder.root), parse(classes + layout + splits, "segpipe.yaml"))


def _described(held_out):
    text = f"like: segnet_tutorial\nheld_out: {held_out}\n"
    return parse(text, "data/segpipe.yaml").held_out


def test_the_old_name_of_the_fraction_works_with_a_warning(caplog):
    assert _described("{share: 0.3}") == _described("{fraction: 0.3}") == HeldOut(fraction=0.3)
    assert caplog.messages == [
        "data/segpipe.yaml: held_out.share is now held_out.fraction; the next version drops the old name"
    ]


def test_both_names_of_the_fraction_at_once_are_refused():
    with pytest.raises(UsageError, match=r"segpipe\.yaml: held_out: .*share and its new name fraction, expected only"):
        _described("{share: 0.2, fraction: 0.3}")
