"""Downloads public data sets; checks every file against its SHA-256 and keeps files that are already there.

pooch downloads, checks and moves each file; this module adds threads, unpacking, and retries of temporary failures
only (pooch 1.9 also retries after a status such as 404, see `stream_download` in its `core.py`).
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import ssl
import tarfile
import threading
import types
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pooch
import tenacity

from components.errors import SegpipeError, UsageError
from components.yaml_loading import load_mapping

TIMEOUT_SECONDS = 30.0
_SCHEMES = ("https", "http", "file")
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

# Called with the number of files done, a file in progress counted by its fraction, and the number of all files.
OnProgress = Callable[[float, int], None]


@dataclasses.dataclass(frozen=True)
class PublicDataset:
    """A data set that can be downloaded without an account."""

    title: str  # its name in messages
    url: str  # address of the folder that holds its files
    sha256: Mapping[str, str]  # SHA-256 of every file, by path. Archives (`.tar.gz`) are unpacked beside themselves.
    licence: str  # what it may be used for
    # top-level folders of each split; empty if the data set cannot be downloaded by split
    folders: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)

    def files_of(self, splits: Collection[str]) -> dict[str, str]:
        """Returns the SHA-256 of each file of some splits, by path; of all files without splits. Raises UsageError."""
        if splits and not self.folders:
            raise UsageError(
                f"--split: found {', '.join(splits)}, but {self.title} cannot be downloaded by split; leave it out"
            )
        if unknown := sorted(set(splits) - set(self.folders)):
            expected = ", ".join(self.folders)
            raise UsageError(f"{self.title}: unknown split {', '.join(unknown)}; expected some of {expected}")
        wanted = {folder for split in splits for folder in self.folders[split]}
        return {path: digest for path, digest in self.sha256.items() if not splits or path.split("/")[0] in wanted}


def _load() -> dict[str, PublicDataset]:
    """Returns the data sets of downloads.yaml by name, with the checksums in NAME_sha256.txt (from `sha256sum`)."""
    folder = Path(__file__).parent
    datasets = {}
    text = (folder / "downloads.yaml").read_text(encoding="utf-8")
    for name, described in load_mapping(text, "downloads.yaml").items():
        lines = (folder / f"{name}_sha256.txt").read_text(encoding="utf-8").splitlines()
        sha256 = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
        datasets[name] = PublicDataset(sha256=sha256, **described)
    return datasets


DATASETS = _load()


@dataclasses.dataclass(frozen=True)
class Fetched:
    """Number of files downloaded, number of files that were already there, and bytes downloaded."""

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
    """Downloads the missing files of a data set and unpacks its archives.

    Args:
        dataset: what to download.
        destination: folder to fill; made if missing.
        address: another address of the folder that holds the files.
        splits: splits to download; all if empty.
        on_progress: called from several threads, one at a time.
        workers: number of parallel downloads.
        attempts: tries for each file.
        pause_seconds: wait before the second try; it doubles each time.

    Raises:
        UsageError: an unknown split, or an address with an unknown scheme.
        DownloadError: a file cannot be downloaded or written, or has a wrong checksum.
    """
    wanted, url = dataset.files_of(splits), (address or dataset.url).rstrip("/") + "/"
    if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
        raise UsageError(f"--address {address}: expected an address that begins with {' or '.join(_SCHEMES)}, then ://")
    pooch.get_logger().setLevel("WARNING")  # it would print a line for each file
    store = pooch.create(path=os.path.abspath(destination), base_url=url, registry=wanted)
    download = _Download(dataset.title, store, on_progress, attempts, pause_seconds)
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(download.fetch, path) for path in wanted]
        try:
            sizes = [future.result() for future in as_completed(futures)]
        except BaseException:
            download.stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    fresh = [size for size in sizes if size is not None]
    return Fetched(downloaded=len(fresh), kept=len(sizes) - len(fresh), bytes=sum(fresh))


class _Download:
    """One download of a data set, shared by its threads. Set `stopped` to end it."""

    def __init__(
        self, title: str, store: pooch.Pooch, on_progress: OnProgress, attempts: int, pause_seconds: float
    ) -> None:
        self.stopped = threading.Event()
        self._title, self._store, self._on_progress, self._attempts = title, store, on_progress, attempts
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient),
            stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_when_event_set(self.stopped),
            wait=tenacity.wait_exponential(multiplier=pause_seconds),
            sleep=tenacity.sleep_using_event(self.stopped),
            reraise=True,
        )
        self._fractions: dict[str, float] = {}
        self._lock = threading.Lock()

    def fetch(self, path: str) -> int | None:
        """Returns the bytes downloaded, or None if the file was already there."""
        source, target = self._store.get_url(path), Path(self._store.abspath, path)
        try:
            # pooch fails if another thread makes the same folder at the same time.
            target.parent.mkdir(parents=True, exist_ok=True)
            action = self._retrying(
                self._store.fetch,
                path,
                processor=lambda name, action, store: action,  # "fetch" if the file was there
                downloader=lambda url, output, store: self._transfer(url, output, path),
            )
        except (OSError, ValueError) as error:
            if not _is_transient(error):
                expected = f"expected a file of {self._title} there, and a folder that can be written"
                raise DownloadError(f"{source}: {error}; {expected}. Check the address and the folder") from None
            raise DownloadError(
                f"{source}: {error} (after {self._attempts} attempts). Check the network, any proxy and the disk, then"
                " run the same command again: it keeps the files downloaded so far. --address takes another copy of"
                " the files"
            ) from None
        if path.endswith(".tar.gz"):
            _unpack(target)
        self._report(path, 1.0)
        return None if action == "fetch" else target.stat().st_size

    def _transfer(self, url: str, output: str, path: str) -> None:
        """Downloads a file, or copies it from a `file://` address."""
        # pooch makes files that only their owner can read; others may train on the data.
        os.chmod(output, 0o644)
        if url.startswith("file:"):
            shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlsplit(url).path), output)
            return
        # requests uses its own CA certificates; a proxy may have one that only the system trusts.
        verify = ssl.get_default_verify_paths().cafile or True
        # pooch expects tqdm's methods (pooch 1.9, `HTTPDownloader.__call__`), and sets `total`.
        bar = types.SimpleNamespace(total=0, reset=lambda: None, close=lambda: None)
        # The last 1 % is left for the checksum and unpacking.
        bar.update = lambda size: self._report(path, min(os.path.getsize(output) / max(bar.total, 1), 0.99))
        pooch.HTTPDownloader(bar, chunk_size=1 << 16, timeout=TIMEOUT_SECONDS, verify=verify)(url, output, self._store)

    def _report(self, path: str, fraction: float) -> None:
        """Reports the downloaded fraction of a file. Raises DownloadError if the download was stopped."""
        if self.stopped.is_set():
            raise DownloadError(f"{path}: not downloaded, because another file failed")
        with self._lock:
            self._fractions[path] = fraction
            self._on_progress(sum(self._fractions.values()), len(self._store.registry))


def _is_transient(error: BaseException) -> bool:
    """Tells whether a retry may help after an error of requests or the disk (OSError) or a checksum (ValueError)."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status:
        return status in _TRANSIENT_STATUS
    lasting = FileNotFoundError | FileExistsError | NotADirectoryError | PermissionError
    return isinstance(error, OSError | ValueError) and not isinstance(error, lasting)


def _unpack(archive: Path) -> None:
    """Unpacks a tar file into its folder, except files that are there in full size; writes nothing outside it."""
    folder = archive.parent

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
