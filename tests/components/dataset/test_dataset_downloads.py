"""A download ends with the right bytes, whatever the server does, or names the file and the failure."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import socket
import stat
import tarfile
import threading
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from components.dataset.downloads import DATASETS, DownloadError, PublicDataset, fetch
from components.errors import UsageError
from pipeline.cli.data import PUBLIC_DATASETS
from pipeline.cli.main import app

FILES = {
    f"{folder}/{name}.png": f"{folder} {name}".encode() * 500 for folder in ("train", "trainannot") for name in "ab"
}
FILES |= {f"{folder}/c.png": folder.encode() for folder in ("val", "valannot", "test", "testannot")}
MANIFEST = {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}
DATASET = dataclasses.replace(DATASETS["camvid"], sha256=MANIFEST)
TRAIN = [path for path in FILES if path.startswith("train")]


class Server:
    """A real HTTP server whose answers a test can spoil: a list of actions by path, used one a request."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.actions: dict[str, list[str | int]] = defaultdict(list)
        self.requests: Counter[str] = Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                """Keeps the tests' output quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/CamVid/"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix("/CamVid/")
        self.requests[path] += 1
        action = self.actions[path].pop(0) if self.actions[path] else "serve"
        if isinstance(action, int):
            handler.send_error(action)
            return
        body = self.files[path]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if action == "corrupt":
            handler.wfile.write(body[:-1] + b"X")
        elif action == "interrupt":
            handler.wfile.write(body[:-100])
        else:
            handler.wfile.write(body)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    server = Server(dict(FILES))
    yield server
    server.close()


@pytest.fixture
def get(server, tmp_path):
    """Downloads the train split into `tmp_path`, without waiting between attempts."""

    def run(**options):
        settings = {"address": server.url, "splits": ["train"], "workers": 2, "pause_seconds": 0}
        return fetch(DATASET, tmp_path, **{**settings, **options})

    return run


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_it_downloads_the_requested_splits(get, tmp_path):
    fetched = get()

    assert (fetched.downloaded, fetched.kept) == (4, 0)
    assert fetched.bytes == sum(len(FILES[path]) for path in TRAIN)
    assert files_below(tmp_path) == set(TRAIN)
    assert all((tmp_path / path).read_bytes() == FILES[path] for path in TRAIN)
    assert all((tmp_path / path).stat().st_mode & stat.S_IROTH for path in TRAIN)


def test_it_takes_all_splits_by_default(server, tmp_path):
    fetch(DATASET, tmp_path, server.url)

    assert files_below(tmp_path) == set(FILES)


def test_a_second_run_downloads_nothing(get, server):
    get()

    fetched = get()

    assert (fetched.downloaded, fetched.kept, fetched.bytes) == (0, 4, 0)
    assert sum(server.requests.values()) == 4


def test_a_damaged_file_on_disk_is_replaced(get, tmp_path, server):
    get()
    (tmp_path / "train/a.png").write_bytes(b"half a file")
    # A reader that has the old file open keeps it whole: the new one takes its place in one step.
    os.link(tmp_path / "train/a.png", tmp_path / "as_a_reader_sees_it")

    assert get().downloaded == 1
    assert (tmp_path / "train/a.png").read_bytes() == FILES["train/a.png"]
    assert (tmp_path / "as_a_reader_sees_it").read_bytes() == b"half a file"
    assert server.requests["train/b.png"] == 1


@pytest.mark.parametrize("spoilt", ["corrupt", "interrupt", 500, 503, 429])
def test_a_passing_failure_is_tried_again(get, server, tmp_path, spoilt):
    server.actions["train/b.png"] = [spoilt, spoilt]

    assert get().downloaded == 4
    assert server.requests["train/b.png"] == 3
    assert (tmp_path / "train/b.png").read_bytes() == FILES["train/b.png"]


@pytest.mark.parametrize(
    ("spoilt", "expected"),
    [
        ("corrupt", [MANIFEST["train/b.png"], hashlib.sha256(FILES["train/b.png"][:-1] + b"X").hexdigest()]),
        ("interrupt", ["IncompleteRead", "100 more expected"]),
        (500, ["500"]),
    ],
)
def test_a_lasting_failure_names_the_file_and_leaves_nothing_half_written(get, server, tmp_path, spoilt, expected):
    server.actions["train/b.png"] = [spoilt] * 10

    with pytest.raises(DownloadError) as raised:
        get(attempts=3)

    for part in (f"{server.url}train/b.png", "after 3 attempts", "run the same command again", *expected):
        assert part in str(raised.value)
    assert server.requests["train/b.png"] == 3
    assert files_below(tmp_path) <= set(TRAIN) - {"train/b.png"}


def test_a_file_the_server_does_not_have_is_not_asked_for_again(get, server):
    server.actions["train/b.png"] = [404] * 10

    with pytest.raises(DownloadError, match=r"train/b\.png: 404 .* expected a file of CamVid there"):
        get()

    assert server.requests["train/b.png"] == 1


def test_a_download_resumes_after_an_interruption(get, server):
    server.actions["train/b.png"] = [404]
    with pytest.raises(DownloadError):
        get(workers=1)
    asked_before = dict(server.requests)

    fetched = get()

    assert fetched.kept >= 1
    assert fetched.downloaded + fetched.kept == 4
    assert server.requests["train/a.png"] == asked_before["train/a.png"] == 1


def test_no_server_at_all_names_the_address(get):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/CamVid"

        with pytest.raises(DownloadError, match="Connection refused") as raised:
            get(address=address, attempts=2)

    assert f"{address}/train" in str(raised.value)
    assert "Check the network" in str(raised.value)


def test_progress_counts_every_file(get):
    calls = []

    get(on_progress=lambda done, total: calls.append((done, total)))

    assert [done for done, total in calls] == sorted(done for done, total in calls)
    assert {1, 2, 3, 4} <= {round(done) for done, total in calls}
    assert {total for done, total in calls} == {4}
    assert calls[-1] == (4, 4)


def test_an_unknown_split_is_refused(get):
    with pytest.raises(UsageError, match=r"unknown split vall; expected some of train, val, test"):
        get(splits=["train", "vall"])


def test_files_are_copied_from_a_folder(get, tmp_path):
    mirror = tmp_path / "a mirror"
    for path in set(TRAIN) - {"train/b.png"}:
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (mirror / path).write_bytes(FILES[path])

    with pytest.raises(DownloadError, match=r"train/b\.png: .*No such file"):
        get(address=mirror.as_uri())

    (mirror / "train/b.png").write_bytes(FILES["train/b.png"])
    assert get(address=mirror.as_uri()).downloaded >= 1
    assert (tmp_path / "train/b.png").read_bytes() == FILES["train/b.png"]


def test_a_folder_that_cannot_be_written_is_named(get, tmp_path):
    (tmp_path / "train").write_bytes(b"a file in the folder's place")

    with pytest.raises(DownloadError, match=f"File exists: '{tmp_path}/train'.* a folder that can be written"):
        get(attempts=1)


def test_the_command_prints_the_counts_and_the_licence(server, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "camvid", DATASET)

    done = CliRunner().invoke(app, ["data", "fetch", str(tmp_path), "--address", server.url, "--split", "val"])

    assert done.exit_code == 0
    assert "2 files fetched (0 MB), 0 kept" in done.stdout
    assert "CC BY-NC 4.0" in done.stdout


def test_the_manifest_lists_all_of_camvid():
    manifest = DATASETS["camvid"].sha256

    counts = Counter(path.split("/")[0] for path in manifest)
    assert counts == {"train": 367, "trainannot": 367, "val": 101, "valannot": 101, "test": 233, "testannot": 233}
    assert all(len(digest) == 64 for digest in manifest.values())
    assert {path for path in manifest if path.startswith("trainannot/")} == {
        path.replace("train/", "trainannot/") for path in manifest if path.startswith("train/")
    }


def test_the_manifest_fits_real_camvid(real_camvid):
    manifest = {path: digest for path, digest in DATASETS["camvid"].sha256.items() if not path.startswith("test")}

    wrong = [
        path
        for path, digest in manifest.items()
        if hashlib.sha256((real_camvid / path).read_bytes()).hexdigest() != digest
    ]

    assert wrong == []


def archive(files: dict[str, bytes]) -> bytes:
    """Returns a tar file as `images.tar.gz` is one."""
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz") as opened:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    return stored.getvalue()


@pytest.fixture
def get_archive(server, tmp_path):
    """Downloads an archive of some files into `tmp_path` / "pets"."""

    def run(files):
        server.files = {"images.tar.gz": archive(files)}
        digest = hashlib.sha256(server.files["images.tar.gz"]).hexdigest()
        pets = PublicDataset("Pets", server.url, {"images.tar.gz": digest}, "licence")
        return fetch(pets, tmp_path / "pets", pause_seconds=0)

    return run


PHOTOS = {"images/a.jpg": b"a photo", "images/b.jpg": b"another photo"}


def test_an_archive_is_unpacked_beside_itself(get_archive, tmp_path):
    get_archive(PHOTOS)

    assert files_below(tmp_path / "pets") == {"images.tar.gz", *PHOTOS}
    assert (tmp_path / "pets/images/b.jpg").read_bytes() == PHOTOS["images/b.jpg"]


def test_unpacking_resumes_after_an_interruption(get_archive, server, tmp_path):
    get_archive(PHOTOS)
    whole, half = tmp_path / "pets/images/a.jpg", tmp_path / "pets/images/b.jpg"
    half.write_bytes(b"anot")
    os.utime(whole, (1, 1))

    fetched = get_archive(PHOTOS)

    assert (fetched.downloaded, fetched.kept) == (0, 1)
    assert half.read_bytes() == PHOTOS["images/b.jpg"]
    assert whole.stat().st_mtime == 1
    assert server.requests["images.tar.gz"] == 1


@pytest.mark.parametrize("name", ["../outside.jpg", "images/../../outside.jpg"])
def test_no_file_of_an_archive_leaves_the_folder(get_archive, tmp_path, name):
    with pytest.raises(DownloadError, match=r"images\.tar\.gz: cannot be unpacked: .*outside the destination"):
        get_archive({name: b"-"})

    assert files_below(tmp_path) == {"pets/images.tar.gz"}


def test_the_command_fetches_all_of_pets_and_refuses_a_split(server, tmp_path, monkeypatch):
    server.files = {name: archive({f"{name[:6]}/a": b"-"}) for name in DATASETS["pets"].sha256}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in server.files.items()}
    monkeypatch.setitem(DATASETS, "pets", dataclasses.replace(DATASETS["pets"], sha256=digests))
    words = ["data", "fetch", str(tmp_path / "pets"), "--dataset", "pets", "--address", server.url]

    done, refused = CliRunner().invoke(app, words), CliRunner().invoke(app, [*words, "--split", "val"])

    assert done.exit_code == 0
    assert "2 files fetched" in done.stdout
    assert "CC BY-SA 4.0" in done.stdout
    assert files_below(tmp_path / "pets") == {*server.files, "annota/a", "images/a"}
    assert "--split: found val, but Oxford-IIIT Pets cannot be downloaded by split" in str(refused.exception)


def test_the_command_names_the_data_sets(tmp_path):
    done = CliRunner().invoke(app, ["data", "fetch", str(tmp_path), "--dataset", "cats"])

    assert tuple(DATASETS) == PUBLIC_DATASETS
    assert "--dataset: found cats, expected one of camvid, pets" in str(done.exception)
