"""The run that is watched is the one whose model is served."""

import pytest

from components.errors import UsageError
from components.pusher.moves import record_moves
from pipeline.storage.store import Artifact, NodeExecution
from pipeline.watch.reference import find_run


class _Store:
    """The metadata of runs that each pushed a version."""

    def __init__(self, versions):
        self._versions = versions

    def run_ids(self):
        return list(self._versions)

    def executions(self, run_id):
        pushed = {"pushed": 1, "pushed_destination": str(self._versions[run_id])}
        outputs = {"StatisticsGen": ("statistics", {}), "Pusher": ("pushed_model", pushed)}
        return [
            NodeExecution(0, node, "cached", 0, 0, {}, {}, {key: [Artifact(0, "", "uri", properties)]}, project=run_id)
            for node, (key, properties) in outputs.items()
        ]


@pytest.fixture
def versions(tmp_path):
    """Three versions of one model; the first and the last have the same files."""
    for name, weights in (("1", "seed 7"), ("2", "seed 8"), ("3", "seed 7")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_text(weights)
    return tmp_path


@pytest.mark.parametrize(("latest", "watched"), [("3", "latest"), ("2", "earlier"), ("1", "latest")])
def test_a_run_whose_version_was_replaced_is_not_watched(versions, latest, watched):
    store = _Store({"earlier": versions / "3", "latest": versions / latest})

    assert find_run(store) == watched


def test_after_a_rollback_the_stable_version_is_watched_and_not_the_newest(versions):
    store = _Store({"earlier": versions / "2", "rolled_back": versions / "3"})
    record_moves(str(versions), {}, {"stable": 3})
    assert find_run(store) == "rolled_back"

    record_moves(str(versions), {"stable": 3}, {"stable": 2})

    assert find_run(store) == "earlier"


def test_each_project_has_its_own_served_model(tmp_path):
    store = _Store({"streets": tmp_path / "streets" / "1", "parks": tmp_path / "parks" / "1"})

    assert [find_run(store, project) for project in ("streets", "parks", "")] == ["streets", "parks", "parks"]
    with pytest.raises(UsageError, match="no run of project fields that pushed"):
        find_run(store, "fields")


def test_versions_that_were_moved_elsewhere_count_as_served(tmp_path):
    assert find_run(_Store({"only": tmp_path / "gone" / "1"})) == "only"


@pytest.mark.parametrize("pushed", [[], ["2"]])
def test_a_missing_run_of_the_served_model_is_explained(versions, pushed):
    with pytest.raises(UsageError, match=r"no run that pushed the served model.*segpipe run"):
        find_run(_Store({name: versions / name for name in pushed}))
