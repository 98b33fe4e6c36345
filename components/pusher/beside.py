"""JSON records beside a model's versions, on a disk or an object store.

TensorFlow Serving ignores names that are not numbers (AspireLatestVersions in
tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc, 2.20).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from components import files
from components.errors import SegpipeError
from components.stored_folder import explained

Content = TypeVar("Content")


@dataclasses.dataclass(frozen=True)
class RecordBeside(Generic[Content]):
    """A small JSON file in the directory of a model's versions.

    Attributes:
        name: the file's name.
        type: pydantic adapter of its content.
        example: an example of its content, for messages.
    """

    name: str
    type: TypeAdapter[Content]
    example: str

    def path(self, base_directory: str) -> str:
        """Returns the file's path."""
        return files.join(base_directory, self.name)

    def read(self, base_directory: str) -> Content:
        """Returns the content, empty without a file. Raises SegpipeError if the file is damaged or cannot be read."""
        path = self.path(base_directory)
        with explained(path):
            return self._parse(path, files.read_bytes(path) if files.exists(path) else None)

    def change(self, base_directory: str, step: Callable[[Content], Content]) -> None:
        """Changes the content atomically; concurrent writers lose nothing.

        `step` returns the new content from the old. It must be idempotent, because it may be called several times.
        Raises SegpipeError if the record is damaged, or cannot be read or written.
        """
        path = self.path(base_directory)
        with explained(path):
            files.update(path, lambda before: self._to_json(step(self._parse(path, before))))

    def _to_json(self, content: Content) -> bytes:
        return self.type.dump_json(content, indent=1, exclude_none=True) + b"\n"

    def _parse(self, path: str, content: bytes | None) -> Content:
        empty: Any = self.example[0] + self.example[-1]
        try:
            return self.type.validate_json(empty if content is None else content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise SegpipeError(
                f"{path}: {where}: found {first['msg']}, expected {self.example}. Correct the file"
            ) from None
