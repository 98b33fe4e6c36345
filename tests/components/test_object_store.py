"""Files on a real S3 server, with requests that fail, hang and are refused."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor

import pytest

from components import files, object_store
from components.errors import SegpipeError, UsageError


@pytest.fixture
def quick(monkeypatch):
    """Shortens time limits and pauses."""
    monkeypatch.setattr(object_store, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(object_store, "LONGEST_PAUSE", 0.01)


def fail(times, verdict, methods=("GET", "PUT", "HEAD", "POST", "DELETE")):
    """Returns a proxy rule that makes a number of requests with some methods fail."""
    left = [verdict] * times

    def rule(method, path):
        return left.pop() if left and method in methods else None

    return rule


@pytest.mark.parametrize("name", ["a.png", "a b/ü%#+[x]&=.png", "100%/{span}~.png"])
def test_a_file_is_written_read_listed_and_removed(s3, name):
    path = files.join(s3, "data", name)
    assert not files.exists(path)

    files.write_bytes(path, b"content")

    assert files.read_bytes(path) == b"content"
    assert files.exists(path)
    assert not files.exists(path.rpartition("/")[0])
    assert list(files.list_files(files.join(s3, "data"))) == [name]
    files.remove(path)
    files.remove(path)
    assert not files.exists(path)
    assert list(files.list_files(s3)) == []


def test_large_and_empty_files_keep_their_content(s3, tmp_path):
    content = bytes(range(256)) * (21 << 12)  # 21 MiB, uploaded in several parts
    for size in (0, 1, 8 << 20, len(content)):
        path = f"{s3}/{size}"
        files.write_chunks(path, (content[start : min(start + (4 << 20), size)] for start in range(0, size, 4 << 20)))
        assert b"".join(files.chunks(path)) == content[:size]
        with files.created(path) as file:
            file.write(content[:size][::-1])
        with files.opened(path) as file:
            assert file.read() == content[:size][::-1]


def test_a_failed_write_leaves_no_file(s3):
    def pieces():
        yield from [b"x" * (6 << 20)] * 3
        raise SegpipeError("the source is damaged")

    with pytest.raises(SegpipeError, match="the source is damaged"):
        files.write_chunks(f"{s3}/a", pieces())
    assert not files.exists(f"{s3}/a")


def test_a_folder_lists_only_its_direct_entries(s3):
    for name in ("data/a/x", "data/b/c/x", "data/.hidden", "database/x", "data/z"):
        files.write_bytes(f"{s3}/{name}", b"-")

    assert files.list_names(f"{s3}/data") == [".hidden", "a", "b", "z"]
    assert files.list_folders(f"{s3}/data/") == ["a", "b"]
    assert files.list_names(f"{s3}/none") == files.list_folders(f"{s3}/none") == []
    assert list(files.list_files(f"{s3}/data")) == ["a/x", "b/c/x", "z"]
    files.remove_folder(f"{s3}/data")
    assert list(files.list_files(s3)) == ["database/x"]


def test_more_objects_than_a_page_are_listed(s3):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: files.write_bytes(f"{s3}/many/{number:04d}", b""), range(1005)))

    assert len(list(files.list_files(f"{s3}/many"))) == 1005


def test_the_listing_names_checksums_that_follow_the_content(s3, tmp_path):
    files.write_bytes(f"{s3}/data/a", b"1")
    files.write_bytes(f"{s3}/data/.b", b"1")
    before = files.checksums(f"{s3}/data")
    files.write_bytes(f"{s3}/data/a", b"2")

    assert before == {"a": "etag:c4ca4238a0b923820dcc509a6f75849b"}  # the MD5 of "1"
    assert files.checksums(f"{s3}/data") == {"a": "etag:c81e728d9d4c2f636f067f89cc14862c"}
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "a").write_bytes(b"1")
    assert files.checksums(str(tmp_path / "local")) == {"a": ""}


@pytest.mark.parametrize("verdict", [503, 500, "hang"])
def test_requests_that_fail_temporarily_are_retried(s3, s3_proxy, quick, monkeypatch, verdict):
    # A part of 5 MiB must arrive within this time, also on a busy machine.
    monkeypatch.setattr(object_store, "SILENCE_SECONDS", 3.0)
    for action, methods in (
        (lambda: files.write_bytes(f"{s3}/a", b"1"), ("PUT",)),
        (lambda: files.read_bytes(f"{s3}/a"), ("GET",)),
        (lambda: list(files.list_files(s3)), ("GET",)),
        (lambda: files.exists(f"{s3}/a"), ("HEAD",)),
        (lambda: files.write_bytes(f"{s3}/a", b"x" * (12 << 20)), ("POST", "PUT")),
        (lambda: files.remove(f"{s3}/a"), ("POST", "DELETE")),
    ):
        s3_proxy.rule = fail(2, verdict, methods)
        action()
        assert s3_proxy.rule(methods[0], "") is None
    assert list(files.list_files(s3)) == []


@pytest.mark.parametrize("verdict", [503, "hang"])
def test_a_store_that_keeps_failing_is_an_error_with_the_path(s3, s3_proxy, quick, verdict):
    s3_proxy.rule = lambda method, path: verdict

    for action in (
        lambda: files.read_bytes(f"{s3}/a"),
        lambda: files.write_bytes(f"{s3}/a", b"1"),
        lambda: list(files.list_files(f"{s3}/a")),
        lambda: files.exists(f"{s3}/a"),
    ):
        s3_proxy.requests.clear()
        with pytest.raises(OSError, match=f"{s3}/a") as error:
            action()
        assert error.value.errno == errno.EIO
        assert len(s3_proxy.requests) == 1 + object_store.RETRIES
    with pytest.raises(SegpipeError, match=f"{s3}/a: cannot be read.*then run the same command again"):
        files.read_data_file(f"{s3}/a")


def test_a_refusal_says_what_to_check_and_is_not_retried(s3, s3_proxy, quick):
    s3_proxy.rule = lambda method, path: 403

    for action in (
        lambda: files.read_bytes(f"{s3}/a"),
        lambda: files.write_bytes(f"{s3}/a", b"1"),
        lambda: list(files.list_files(f"{s3}/a")),
        lambda: files.exists(f"{s3}/a"),
    ):
        s3_proxy.requests.clear()
        with pytest.raises(PermissionError, match="check the credentials and their rights to the bucket"):
            action()
        assert len(s3_proxy.requests) == 1


def test_wrong_keys_are_refused_by_the_server(s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    object_store._open.cache_clear()

    with pytest.raises(SegpipeError, match=f"{s3}/a: cannot be read .*check the credentials"):
        files.read_data_file(f"{s3}/a")


def test_a_missing_file_is_reported_without_a_retry(s3, s3_proxy, quick):
    s3_proxy.requests.clear()

    with pytest.raises(FileNotFoundError, match=f"{s3}/a"):
        files.read_bytes(f"{s3}/a")
    with pytest.raises(SegpipeError, match=f"{s3}/a: cannot be read"):
        files.read_data_file(f"{s3}/a")

    assert len(s3_proxy.requests) == 2


def test_a_bucket_that_does_not_exist_is_not_an_empty_one(s3):
    with pytest.raises(FileNotFoundError, match="s3://no-such-bucket"):
        list(files.list_files("s3://no-such-bucket/data"))


def test_the_error_of_an_unknown_scheme_lists_the_known_ones():
    with pytest.raises(
        UsageError, match=r"unheard://bucket: found an unknown scheme, expected a local path or one of s3://"
    ):
        files.read_bytes("unheard://bucket/a")
