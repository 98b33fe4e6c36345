"""Records beside a model's versions: which are withdrawn, and when labels moved."""

from __future__ import annotations

import json
import pathlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from components import files
from components.errors import SegpipeError, UsageError
from components.pusher import moves, withdrawn
from components.pusher.push import push


@pytest.fixture(params=["disk", "file://"])
def base(request, tmp_path) -> str:
    """A directory of versions."""
    (tmp_path / "street").mkdir()
    return f"{'' if request.param == 'disk' else request.param}{tmp_path}/street"


def test_a_version_is_withdrawn_and_restored(base, model):
    _, number = push(model, base)

    withdrawn.withdraw(base, number, "flickers")
    first = withdrawn.read_withdrawn(base)[number]
    withdrawn.withdraw(base, number, "flickers at night")

    assert first.why == "flickers"
    assert withdrawn.read_withdrawn(base)[number] == first.model_copy(update={"why": "flickers at night"})
    withdrawn.restore(base, number)
    assert withdrawn.read_withdrawn(base) == {}
    with pytest.raises(UsageError, match=f"found no withdrawn version {number}, expected one of: none"):
        withdrawn.restore(base, number)


def test_a_withdrawn_model_is_recognised_by_its_files_without_its_scores(base, model):
    directory, number = push(model, base)
    withdrawn.withdraw(base, number, "flickers")
    files.remove_folder(directory)
    scored = pathlib.Path(model, "assets", "segpipe.json")
    scored.parent.mkdir(exist_ok=True)
    scored.write_text('{"metrics": {}}')

    assert withdrawn.withdrawn_as(model, base) == number
    pathlib.Path(model, "saved_model.pb").write_bytes(b"another")
    assert withdrawn.withdrawn_as(model, base) is None


def test_a_version_that_was_removed_can_be_withdrawn(base, model):
    withdrawn.withdraw(base, 7, "flickers")

    assert withdrawn.read_withdrawn(base)[7].model is None
    assert withdrawn.withdrawn_as(model, base) is None


def test_the_moves_of_labels_are_kept_with_time_and_author(base, monkeypatch):
    monkeypatch.setattr(moves.getpass, "getuser", lambda: "ann")
    monkeypatch.setattr(moves.socket, "gethostname", lambda: "desk")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    moves.record_moves(base, {}, {"stable": 12, "canary": 12})
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    moves.record_moves(base, {"stable": 12, "canary": 13, "previous": 11}, {"stable": 12, "canary": 12})

    kept = [(move.label, move.version, move.by) for move in moves.read_moves(base)]

    assert kept == [
        ("canary", 12, "ann@desk"),
        ("stable", 12, "ann@desk"),
        ("canary", 12, "desk"),
        ("previous", None, "desk"),
    ]


def test_the_last_fifty_moves_are_kept(base):
    for version in range(1, 61):
        moves.record_moves(base, {"stable": version - 1}, {"stable": version})

    assert [move.version for move in moves.read_moves(base)] == list(range(11, 61))


def test_many_moves_of_one_label_keep_the_newest_move_of_another(base):
    for version in (1, 2):
        moves.record_moves(base, {"stable": version - 1}, {"stable": version})
    for version in range(1, 61):
        moves.record_moves(base, {"canary": version - 1}, {"canary": version})

    assert moves.newest_moves(base)["stable"].version == 2
    assert len(moves.read_moves(base)) == 51


def test_a_user_without_a_name_is_recorded_by_id(base, monkeypatch):
    monkeypatch.setattr(moves.getpass, "getuser", lambda: {}["no such uid"])
    monkeypatch.setattr(moves.os, "getuid", lambda: 4711)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    moves.record_moves(base, {}, {"stable": 12})

    assert moves.read_moves(base)[0].by.startswith("4711@")


def withdraw_many(base: str) -> list[int]:
    """Withdraws versions 1 to 24 at the same time and returns those in the record."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: withdrawn.withdraw(base, number, f"reason {number}"), range(1, 25)))
    return sorted(withdrawn.read_withdrawn(base))


def test_writers_at_the_same_time_lose_nothing(base):
    assert withdraw_many(base) == list(range(1, 25))


def test_writers_of_an_object_store_lose_nothing(s3):
    assert withdraw_many(f"{s3}/street") == list(range(1, 25))


def test_a_lost_answer_of_the_store_changes_nothing(s3, s3_proxy):
    # The store refuses the repeated write, because the object is no longer as it was read.
    base, verdicts = f"{s3}/street", ["lose"]
    moves.record_moves(base, {}, {"stable": 12})
    s3_proxy.rule = lambda method, path: verdicts.pop() if method == "PUT" and verdicts else None

    moves.record_moves(base, {"stable": 12}, {"stable": 13})

    assert [move.version for move in moves.read_moves(base)] == [12, 13]


def test_a_damaged_record_is_not_overwritten(base):
    path = files.join(base, "withdrawn.json")
    files.write_bytes(path, b'{"3": {"why": "x"}}')

    with pytest.raises(SegpipeError, match=r"withdrawn\.json: 3\.when: found Field required, expected .*Correct the"):
        withdrawn.withdraw(base, 4, "flickers")
    assert json.loads(files.read_bytes(path)) == {"3": {"why": "x"}}
