import pytest

from trainer.sharding import WHOLE, Sharding, assign


def test_each_process_has_devices_of_its_own():
    assert [list(Sharding(index, processes=2, devices=3).own) for index in range(2)] == [[0, 1, 2], [3, 4, 5]]
    assert (list(WHOLE.own), WHOLE.replicas) == ([0], 1)


def test_files_of_about_equal_size_are_assigned_to_replicas():
    assert assign({"a": 100, "b": 102, "c": 98, "d": 100}, replicas=2) == [["b", "c"], ["a", "d"]]


@pytest.mark.parametrize(
    "sizes", [{"a": 100}, {"a": 100, "b": 50}, {"a": 100, "b": 0}, {"a": 60, "b": 60, "c": 60}], ids=str
)
def test_files_that_cannot_be_divided_evenly_are_not_assigned(sizes):
    assert assign(sizes, replicas=2) is None
