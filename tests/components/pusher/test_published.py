"""Versions on an object store: published by their last write, in any order of pushes, kills and failures."""

from __future__ import annotations

import json
import pathlib

import pytest
import tensorflow as tf
from killed import kills
from saved_files import FILES, content

from components.errors import SegpipeError, UsageError
from components.pusher import published
from components.pusher.published import hash_files, published_versions, read_manifest
from components.pusher.push import push
from components.pusher.versions import find_versions
from serving.predictor import find_version
from serving.server import version_policy


def test_a_push_publishes_the_whole_model_under_a_name_that_is_not_a_number(model, bucket):
    directory, number = push(model, bucket.as_uri())

    assert find_versions(bucket.as_uri()) == {number: directory}
    assert content(pathlib.Path(directory.removeprefix("file://"))) == FILES
    assert read_manifest(directory).files == hash_files(model)
    assert find_version(bucket.as_uri()) == directory
    assert version_policy.find_versions(str(bucket)) == {}


def test_a_push_that_is_killed_before_any_write_publishes_nothing(model, bucket):
    _, old = push(model, bucket.as_uri())

    killed = [published_versions(bucket.as_uri()) for _ in kills("push", model, bucket.as_uri())]

    # To open a file is a write, its content another, and the manifest the last.
    assert len(killed) == len(FILES) + sum(map(bool, FILES.values())) + 1
    assert all(set(versions) == {old} for versions in killed)
    assert version_policy.find_versions(str(bucket)) == {}
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


def test_the_next_push_removes_what_a_killed_push_left_a_day_ago(model, bucket, monkeypatch):
    old, _ = push(model, bucket.as_uri())
    left, number = push(model, bucket.as_uri())
    pathlib.Path(f"{left.removeprefix('file://')}.json").unlink()

    push(model, bucket.as_uri())
    assert pathlib.Path(left.removeprefix("file://")).exists()

    monkeypatch.setattr(published.time, "time", lambda: number + 24 * 3600 + 1.0)
    push(model, bucket.as_uri())
    assert not pathlib.Path(left.removeprefix("file://")).exists()
    assert content(pathlib.Path(old.removeprefix("file://"))) == FILES


@pytest.mark.parametrize(
    "manifest",
    ["", "{", '{"files": {}}', json.dumps({"files": {"../../etc/passwd": {"size": 1, "sha256": "0" * 64}}})],
)
def test_a_damaged_manifest_is_named(bucket, manifest):
    (bucket / "version-5-0123abcd.json").write_text(manifest)

    with pytest.raises(SegpipeError, match=r"version-5-0123abcd\.json: found a damaged manifest"):
        read_manifest(published_versions(bucket.as_uri())[5])


def test_a_store_that_tensorflow_does_not_know_is_named(model):
    with pytest.raises(UsageError, match=r"unheard://bucket/fcn8: TensorFlow .* has no file system"):
        push(model, "unheard://bucket/fcn8")


def test_a_store_that_fails_is_an_error_with_its_path(model, bucket):
    (bucket / "file").write_text("")

    with pytest.raises(SegpipeError, match=f"{bucket.as_uri()}/file"):
        push(model, f"{bucket.as_uri()}/file/fcn8")


def test_tensorflows_store_in_memory_holds_versions_too(model):
    directory, number = push(model, "ram://published/fcn8")

    assert published_versions("ram://published/fcn8") == {number: directory}
    assert read_manifest(directory).files == hash_files(model)
    tf.io.gfile.rmtree("ram://published")
