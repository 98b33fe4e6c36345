"""The old names of renamed settings still work."""

import logging

import pytest

from components.errors import UsageError
from pipeline.configuration.loading import field_names, load_config, read_assignments
from pipeline.configuration.renamed import REMOVED, RENAMED, _warn

VALUES = {"normalize_exposure": "true"}


@pytest.fixture(autouse=True)
def _not_warned_yet():
    _warn.cache_clear()


@pytest.mark.parametrize(("new", "old"), RENAMED.items())
def test_an_old_name_sets_the_setting_and_warns_once(new, old, caplog):
    value = VALUES.get(new, "0.25")
    layer = "--set", read_assignments([f"{old}={value}"])

    with caplog.at_level(logging.WARNING):
        configs = [load_config([layer]) for _ in range(2)]

    expected = load_config([("--set", read_assignments([f"{new}={value}"]))])
    assert configs == [expected, expected] != [load_config([])] * 2
    assert caplog.messages == [f"--set: {old} is now {new}; the next version drops the old name"]


def test_new_names_exist_and_old_ones_do_not():
    names = {name for name, _, _ in field_names()}

    assert set(RENAMED) <= names
    assert not names & {*RENAMED.values(), *REMOVED}


def test_both_names_at_once_are_refused():
    layer = {"training": {"lovasz": 1.0, "lovasz_weight": 0.5}}

    with pytest.raises(UsageError, match=r"x\.yaml: found training\.lovasz and its new name training\.lovasz_weight"):
        load_config([("x.yaml", layer)])


def test_a_new_name_on_the_command_line_overrides_the_old_one_in_a_file():
    layers = [("x.yaml", {"training": {"dice": 1.0}}), ("--set", {"training": {"dice_weight": 0.5}})]

    assert load_config(layers).training.dice_weight == 0.5


@pytest.mark.parametrize(("name", "off"), REMOVED.items())
def test_a_removed_setting_may_only_be_disabled(name, off):
    assert load_config([("x.yaml", read_assignments([f"{name}={off}"]))]) == load_config([])
    with pytest.raises(UsageError, match=f"x.yaml: {name}: found 1.5, but this setting was removed; delete it"):
        load_config([("x.yaml", read_assignments([f"{name}=1.5"]))])
