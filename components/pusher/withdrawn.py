"""The record of withdrawn versions: `withdrawn.json` beside a model's versions, on a disk or an object store."""

from __future__ import annotations

import hashlib

from pydantic import AwareDatetime, TypeAdapter

from components import files
from components.artifact_files import MODEL_METADATA
from components.errors import UsageError
from components.pusher.beside import RecordBeside
from components.pusher.versions import find_versions
from components.settings import Settings
from components.stored_folder import hash_files, read_manifest
from components.times import now

# Property of a PushedModel that was not pushed again: the number of the equal, withdrawn version.
WITHDRAWN = "withdrawn"


class Withdrawal(Settings):
    """Why a version was withdrawn, and when (ISO 8601, in UTC).

    Attributes:
        why: the reason.
        when: the time.
        model: hash of the model's files, by which Pusher recognises it; None if the version did not exist.
    """

    why: str
    when: AwareDatetime
    model: str | None = None


_RECORD = RecordBeside(
    "withdrawn.json",
    TypeAdapter(dict[int, Withdrawal]),
    '{"VERSION": {"why": "...", "when": "2026-01-31T12:00:00Z"}}',
)


def read_withdrawn(base_directory: str) -> dict[int, Withdrawal]:
    """Returns the withdrawn versions of a model by number; empty without a record.

    Raises:
        SegpipeError: the record is damaged, or cannot be read.
    """
    return _RECORD.read(base_directory)


def withdraw(base_directory: str, version: int, why: str) -> None:
    """Records that a version is withdrawn; a second call replaces the reason and keeps the time.

    The files of the version stay. A removed version may be withdrawn too, because the gate and the warm start read
    models from the pipeline's artifacts.

    Raises:
        SegpipeError: the version or the record cannot be read, or the record cannot be written.
    """
    directory = find_versions(base_directory).get(version)
    given = Withdrawal(why=why, when=now(), model=directory and model_hash(directory))

    def add(record: dict[int, Withdrawal]) -> dict[int, Withdrawal]:
        before = record.get(version, given)
        same = {"when": before.when, "model": given.model or before.model}
        return {**record, version: given.model_copy(update=same)}

    _RECORD.change(base_directory, add)


def restore(base_directory: str, version: int) -> None:
    """Removes a version from the record.

    Raises:
        UsageError: it is not withdrawn.
        SegpipeError: the record is damaged, or cannot be read or written.
    """
    known = read_withdrawn(base_directory)
    if version not in known:
        raise UsageError(
            f"{_RECORD.path(base_directory)}: found no withdrawn version {version}, "
            f"expected one of: {', '.join(map(str, sorted(known))) or 'none'}"
        )
    _RECORD.change(base_directory, lambda record: {number: record[number] for number in record if number != version})


def withdrawn_as(model_path: str, base_directory: str) -> int | None:
    """Returns the number of the withdrawn version that equals an exported model, or None.

    Raises:
        SegpipeError: the model or the record cannot be read.
    """
    known = {withdrawal.model: version for version, withdrawal in read_withdrawn(base_directory).items()}
    return known.get(model_hash(model_path)) if set(known) - {None} else None


def model_hash(directory: str) -> str:
    """Returns a hash of a model's files without its metadata, to which Pusher adds the scores."""
    published = files.is_remote(directory) and directory in find_versions(directory.rpartition("/")[0]).values()
    found = read_manifest(directory).files if published else hash_files(directory)
    lines = [f"{path} {file.sha256}\n" for path, file in sorted(found.items()) if path != MODEL_METADATA]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
