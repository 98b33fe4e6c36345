"""Versions on an object store are published by their last write, despite kills and failures."""

from __future__ import annotations

import json
import pathlib

import pytest
from killed import kills
from saved_files import FILES, content

from components import object_store
from components.errors import SegpipeError, UsageError
from components.pusher import published
from components.pusher.published import unpublish
from components.pusher.push import push
from components.pusher.sync import sync
from components.pusher.versions import find_versions, published_versions
from components.stored_folder import hash_files, read_manifest
from serving.predictor import find_version
from serving.server.registry import list_versions


def test_a_push_publishes_the_whole_model_under_a_name_that_is_not_a_number(model, bucket):
    directory, number = push(model, bucket.as_uri())

    assert find_versions(bucket.as_uri()) == {number: directory}
    assert content(pathlib.Path(directory.removeprefix("file://"))) == FILES
    assert read_manifest(directory).files == hash_files(model)
    assert find_version(bucket.as_uri()) == directory
    assert list_versions(str(bucket)) == {}


def test_a_push_that_is_killed_before_any_write_publishes_nothing(model, bucket):
    _, old = push(model, bucket.as_uri())

    killed = [published_versions(bucket.as_uri()) for _ in kills("push", model, bucket.as_uri())]

    # Each file is a write, and the manifest the last.
    assert len(killed) == len(FILES) + 1
    assert all(set(versions) == {old} for versions in killed)
    assert list_versions(str(bucket)) == {}
    versions = published_versions(bucket.as_uri())
    assert len(versions) == 2
    assert read_manifest(versions[max(versions)]).files == hash_files(model)


def test_numbers_rise_beside_published_unfinished_and_older_versions(model, bucket):
    later = 2 * 10**9
    for name in (f"{later}", f"version-{later + 3}-0123abcd", "version-1-x", "notes"):
        (bucket / name).mkdir()

    numbers = [push(model, bucket.as_uri())[1] for _ in range(2)]

    assert numbers == [later + 4, later + 5]


def test_a_number_that_another_push_published_meanwhile_is_refused(model, bucket, monkeypatch):
    copied = published.copy_files

    def copy_beside_another_push(source, target):
        name = target.rpartition("/")[2]
        (bucket / f"{name[:-8]}00000000.json").write_text("{}")
        return copied(source, target)

    monkeypatch.setattr(published, "copy_files", copy_beside_another_push)

    with pytest.raises(SegpipeError, match="another push published"):
        push(model, bucket.as_uri())
    assert len(list(bucket.glob("*.json"))) == 1


def test_a_push_removes_files_of_a_push_that_was_killed_a_day_ago(model, bucket, monkeypatch):
    old, _ = push(model, bucket.as_uri())
    left, number = push(model, bucket.as_uri())
    pathlib.Path(f"{left.removeprefix('file://')}.json").unlink()

    push(model, bucket.as_uri())
    assert pathlib.Path(left.removeprefix("file://")).exists()

    monkeypatch.setattr(published.time, "time", lambda: number + 24 * 3600 + 1.0)
    push(model, bucket.as_uri())
    assert not pathlib.Path(left.removeprefix("file://")).exists()
    assert content(pathlib.Path(old.removeprefix("file://"))) == FILES


@pytest.mark.parametrize(("answers", "removed"), [([False, False], True), ([True], False), ([False, True], False)])
def test_a_version_that_is_wanted_before_or_while_it_is_removed_stays(model, bucket, answers, removed):
    address = f"file://{bucket}"
    directory, number = push(model, address)
    asked = iter(answers)

    assert unpublish(directory, lambda: next(asked)) is removed

    assert list(asked) == []
    if removed:
        assert not list(object_store.objects(address))
    else:
        assert published_versions(address) == {number: directory}
        assert hash_files(directory) == read_manifest(directory).files


@pytest.mark.parametrize(
    "manifest",
    ["", "{", json.dumps({"files": {"../../etc/passwd": {"size": 1, "sha256": "0" * 64}}})],
)
def test_a_damaged_manifest_is_named(bucket, manifest):
    (bucket / "version-5-0123abcd.json").write_text(manifest)

    with pytest.raises(SegpipeError, match=r"version-5-0123abcd\.json: found a damaged manifest"):
        read_manifest(published_versions(bucket.as_uri())[5])


def test_an_unknown_scheme_is_named(model):
    with pytest.raises(UsageError, match=r"unheard://bucket: found an unknown scheme"):
        push(model, "unheard://bucket/fcn8")


def test_a_store_that_fails_is_an_error_with_its_path(model, bucket):
    (bucket / "file").write_text("")

    with pytest.raises(SegpipeError, match=f"{bucket.as_uri()}/file"):
        push(model, f"{bucket.as_uri()}/file/fcn8")


def test_a_killed_push_to_a_real_store_leaves_complete_versions(model, s3, tmp_path):
    base = f"{s3}/fcn8"
    _, old = push(model, base)

    killed = [published_versions(base) for _ in kills("push", model, base)]

    assert len(killed) == len(FILES) + 1
    assert all(set(versions) == {old} for versions in killed)
    assert sync(base, str(tmp_path / "served")).copied == tuple(sorted(published_versions(base), reverse=True))
    for version in find_versions(str(tmp_path / "served")).values():
        assert content(pathlib.Path(version)) == FILES


@pytest.mark.parametrize("verdict", [503, 403])
def test_a_push_to_a_store_that_fails_publishes_nothing_and_can_be_repeated(model, s3, s3_proxy, monkeypatch, verdict):
    monkeypatch.setattr(object_store, "LONGEST_PAUSE", 0.01)
    for number in range(1, len(FILES) + 2):
        puts = []

        def refuse(method, path, puts=puts, number=number):
            puts.extend([path] * (method == "PUT"))
            return verdict if len(puts) >= number else None

        s3_proxy.rule = refuse
        with pytest.raises(SegpipeError, match=f"{s3}/fcn8/version-"):
            push(model, f"{s3}/fcn8")
        s3_proxy.rule = lambda method, path: None
        assert published_versions(f"{s3}/fcn8") == {}

    directory, number = push(model, f"{s3}/fcn8")
    assert published_versions(f"{s3}/fcn8") == {number: directory}


def test_a_sync_from_a_store_that_hangs_fails_and_keeps_the_versions(model, s3, s3_proxy, monkeypatch, tmp_path):
    monkeypatch.setattr(object_store, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(object_store, "RETRIES", 1)
    _, number = push(model, s3)
    served = str(tmp_path / "served")
    assert sync(s3, served).copied == (number,)
    push(model, s3)
    s3_proxy.rule = lambda method, path: "hang" if path.endswith("saved_model.pb") else None

    (error,) = sync(s3, served, remove=True).errors

    assert "saved_model.pb" in error
    assert set(find_versions(served)) == {number}
