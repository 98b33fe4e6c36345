"""The split of the gate is chosen once, from the settings and the data set."""

from __future__ import annotations

import os
import shutil

import pytest

from components.dataset.pairs import find_pairs
from components.errors import UsageError
from pipeline.cli.run import build_config
from pipeline.configuration.data import describe, with_gate_split
from pipeline.configuration.loading import load_config


@pytest.fixture
def with_test_split(street_scenes) -> str:
    """A data set with the splits train, val and test; it has the sequences Synth1 to Synth3 to train on."""
    for folder in ("val", "valannot"):
        shutil.copytree(f"{street_scenes}/{folder}", f"{street_scenes}/{folder.replace('val', 'test')}")
    return street_scenes


def configure(data, *assignments):
    config = build_config(data, "unet", "smoke", None, None, None, list(assignments))
    return with_gate_split(config, describe(config.data))


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        ((), "test"),
        (("data.gate_split=val",), "val"),
        (("data.held_out_fraction=0.3",), "held_out"),
        (("data.held_out_fraction=0.3", "data.gate_split=test"), "test"),
        (("data.train_split=test",), "val"),
    ],
)
def test_the_gate_uses_an_unseen_split_if_there_is_one(with_test_split, assignments, expected):
    config = configure(with_test_split, *assignments)

    assert config.data.gate_split == expected
    # The saved configuration has the same meaning.
    assert load_config([("config.yaml", config.model_dump(mode="json"))]) == config


def test_without_an_unseen_split_the_gate_uses_the_validation_split(street_scenes):
    assert configure(street_scenes).data.gate_split == "val"
    # A folder without a pair is no split, whatever the description lists.
    os.makedirs(f"{street_scenes}/test")
    assert configure(street_scenes).data.gate_split == "val"


def test_held_out_sequences_reach_the_description_that_every_node_gets(street_scenes):
    data = configure(street_scenes, "data.held_out_sequences=[Synth2]").data

    pairs, _ = find_pairs(street_scenes, describe(data))
    assert {pair.split for pair in pairs if pair.sequence == "Synth2"} >= {"held_out"}
    assert {pair.sequence for pair in pairs if pair.split == "held_out"} == {"Synth2"}
    assert "Synth2" not in {pair.sequence for pair in pairs if pair.split == "train"}


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["data.gate_split=train"], "gate_split: found 'train', which is train_split, expected another"),
        (["data.gate_split=tset"], "data.gate_split: found 'tset', expected a split of .*: test, train, val, or auto"),
        (["data.gate_split=held_out"], "data.gate_split: found 'held_out', expected a split of"),
        (["data.held_out_fraction=0.3", "data.held_out_sequences=[Synth1]"], "found both, expected one"),
        (["data.held_out_fraction=1"], r"data.held_out_fraction: found 1, .*less than 1"),
        (["data.held_out_sequences=[Synth9]"], "data.held_out_sequences: 'Synth9' is not there"),
    ],
)
def test_an_invalid_gate_split_is_refused(with_test_split, assignments, message):
    with pytest.raises(UsageError, match=message):
        configure(with_test_split, *assignments)
