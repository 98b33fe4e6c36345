"""`segpipe models sync` copies only complete versions, despite kills, damage and outages."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from killed import kills
from saved_files import FILES, content
from typer.testing import CliRunner

from components.errors import SegpipeError, UsageError
from components.pusher.push import push
from components.pusher.sync import sync
from components.pusher.versions import find_versions
from components.stored_folder import hash_files
from pipeline.cli.main import app
from serving.server.registry import list_versions


@pytest.fixture
def served(tmp_path) -> pathlib.Path:
    return tmp_path / "models" / "fcn8"


def whole(served: pathlib.Path) -> set[int]:
    """Returns the versions that TensorFlow Serving would take, each of which must be whole."""
    versions = list_versions(str(served)) or {}
    for version in versions.values():
        assert content(pathlib.Path(version)) == FILES
    return set(versions)


def folder(directory: str) -> pathlib.Path:
    return pathlib.Path(directory.removeprefix("file://"))


def withdraw(directory: str) -> None:
    folder(f"{directory}.json").unlink()


def test_published_versions_are_copied_once_the_newest_first(model, bucket, served):
    numbers = [push(model, bucket.as_uri())[1] for _ in range(2)]

    assert sync(bucket.as_uri(), str(served)).copied == tuple(reversed(numbers))
    assert whole(served) == set(numbers)
    assert sync(bucket.as_uri(), str(served)).copied == ()


def test_what_a_killed_push_left_is_not_copied(model, bucket, served):
    list(kills("push", model, bucket.as_uri()))

    result = sync(bucket.as_uri(), str(served))

    assert len(list(bucket.glob("version-*/"))) > len(result.copied) == 1
    assert not result.errors
    assert whole(served) == set(result.copied)


def test_a_sync_that_is_killed_before_any_write_shows_only_complete_versions(model, bucket, served):
    numbers = {push(model, bucket.as_uri())[1] for _ in range(2)}

    states = [whole(served) for _ in kills("sync", bucket.as_uri(), str(served))]

    # The last run before the one that ended by itself was killed before its last rename.
    assert set() in states
    assert {max(numbers)} in states
    assert whole(served) == numbers
    assert {entry.name for entry in served.iterdir()} == {*map(str, numbers), ".lock"}


@pytest.mark.parametrize("damage", ["grapf", "gra", None])
def test_a_file_that_differs_from_the_manifest_excludes_only_its_version(model, bucket, served, damage):
    _, sound = push(model, bucket.as_uri())
    directory, broken = push(model, bucket.as_uri())
    file = folder(directory) / "saved_model.pb"
    file.unlink() if damage is None else file.write_text(damage)

    result = sync(bucket.as_uri(), str(served))

    assert result.copied == (sound,)
    assert whole(served) == {sound}
    (error,) = result.errors
    assert f"version {broken} was not copied: " in error
    assert f"{directory}/saved_model.pb" in error


def test_withdrawn_versions_are_removed_only_if_asked_and_never_the_newest(model, bucket, served):
    pushed = [push(model, bucket.as_uri()) for _ in range(3)]
    numbers = [number for _, number in pushed]
    sync(bucket.as_uri(), str(served))
    withdraw(pushed[0][0])
    withdraw(pushed[2][0])

    assert sync(bucket.as_uri(), str(served)).removed == ()
    assert whole(served) == set(numbers)
    assert sync(bucket.as_uri(), str(served), remove=True).removed == (numbers[0],)
    assert whole(served) == set(numbers[1:])


def test_nothing_is_removed_if_the_store_lists_no_version(model, bucket, served):
    numbers = {push(model, bucket.as_uri())[1] for _ in range(2)}
    sync(bucket.as_uri(), str(served))
    bucket.rename(f"{bucket}-away")

    result = sync(bucket.as_uri(), str(served), remove=True)

    assert (result.copied, result.removed) == ((), ())
    assert whole(served) == numbers


def test_a_store_that_cannot_be_listed_is_an_error_of_the_pass(s3, s3_proxy, served):
    s3_proxy.rule = lambda method, path: 403

    (error,) = sync(f"{s3}/fcn8", str(served)).errors

    assert f"{s3}/fcn8" in error
    assert "check the credentials" in error


def test_an_unknown_scheme_is_a_usage_error(served):
    with pytest.raises(UsageError, match="unheard://bucket"):
        sync("unheard://bucket", str(served))


def test_the_command_succeeds_if_the_folder_has_a_version(model, s3, s3_proxy, served, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    arguments = ["models", "sync", s3, str(served)]
    with pytest.raises(SegpipeError, match="no published version.*segpipe models push"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)

    _, number = push(model, s3)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)

    assert result.exit_code == 0
    assert f"copied version {number} to {served}/{number}" in result.stdout
    s3_proxy.rule = lambda method, path: 403
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert f"{s3}: " in result.stderr


def test_a_model_is_pushed_by_hand(model, bucket, served):
    for destination in (str(served), bucket.as_uri()):
        result = CliRunner().invoke(app, ["models", "push", model, destination], catch_exceptions=False)

        (version,) = find_versions(destination).values()
        assert result.stdout == f"pushed {model} to {version}\n"
        assert hash_files(version) == hash_files(model)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_without_a_model_is_not_pushed(bucket, served, scheme):
    with pytest.raises(UsageError, match=r"expected an exported model"):
        CliRunner().invoke(app, ["models", "push", f"{scheme}{bucket}", str(served)], catch_exceptions=False)
    assert not find_versions(str(served))


def test_a_numbered_folder_of_a_store_is_published_by_a_push(model, bucket):
    pathlib.Path(model).rename(bucket / "12")

    CliRunner().invoke(app, ["models", "push", f"{bucket.as_uri()}/12", bucket.as_uri()], catch_exceptions=False)

    ((number, version),) = find_versions(bucket.as_uri()).items()
    assert number > 12
    assert hash_files(version) == hash_files(str(bucket / "12"))


def test_a_remote_destination_is_refused(bucket):
    with pytest.raises(UsageError, match="DESTINATION: found gs://b/c, expected a local folder"):
        CliRunner().invoke(app, ["models", "sync", bucket.as_uri(), "gs://b/c"], catch_exceptions=False)


def test_a_repeated_sync_survives_an_outage_and_ends_with_sigterm(model, s3, s3_proxy, served):
    command = [sys.executable, "-m", "pipeline.cli.main", "models", "sync", s3, str(served)]
    process = subprocess.Popen(
        [*command, "--every", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        _, first = push(model, s3)
        assert process.stdout.readline() == f"copied version {first} to {served}/{first}\n"
        s3_proxy.rule = lambda method, path: 403
        assert any(s3 in line for line in process.stderr)
        s3_proxy.rule = lambda method, path: None
        _, second = push(model, s3)
        assert process.stdout.readline() == f"copied version {second} to {served}/{second}\n"
        assert whole(served) == {first, second}
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_a_reader_of_the_folder_never_sees_half_a_version(model, bucket, served):
    """Reads as fast as it can while versions are pushed and copied."""
    command = [sys.executable, "-m", "pipeline.cli.main", "models", "sync", bucket.as_uri(), str(served)]
    for _ in range(3):
        push(model, bucket.as_uri())
    process = subprocess.Popen(command)
    while process.poll() is None:
        whole(served)
    assert process.returncode == 0
    assert len(whole(served)) == 3
