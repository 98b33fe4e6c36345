"""The record of withdrawn versions: `withdrawn.json` beside a model's versions, on a disk or an object store.

TensorFlow Serving ignores names that are not numbers.
"""

from __future__ import annotations

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from components import files
from components.errors import SegpipeError
from components.settings import Settings

WITHDRAWN_FILE = "withdrawn.json"


class Withdrawal(Settings):
    """Why a version was withdrawn, and when (ISO 8601, in UTC)."""

    why: str
    when: AwareDatetime


_RECORD = TypeAdapter(dict[int, Withdrawal])


def read_withdrawn(base_directory: str) -> dict[int, Withdrawal]:
    """Returns the withdrawn versions of a model by number; none without a record.

    Args:
        base_directory: directory of the versions, local or on an object store.

    Raises:
        SegpipeError: the record is damaged, or the store cannot be read.
    """
    path = files.join(base_directory, WITHDRAWN_FILE)
    try:
        content = files.read_bytes(path) if files.exists(path) else b"{}"
    except OSError as error:
        raise SegpipeError(f"{path}: cannot be read ({error}); expected the record of withdrawn versions") from None
    try:
        return _RECORD.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SegpipeError(
            f"{path}: {where}: found {first['msg']}, expected "
            '{"VERSION": {"why": "...", "when": "2026-01-31T12:00:00Z"}}. Correct the file'
        ) from None
