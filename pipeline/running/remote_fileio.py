"""Adds object stores to `tfx.dsl.io.fileio`, in place of TensorFlow's file systems, which only support `gs://`.

TFX's launcher, drivers and resolvers use fileio to check, create and remove the folders of artifacts. Executors do not
need it: `pipeline.running.staging` gives them local folders.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tfx.dsl.io import filesystem, filesystem_registry

from components import files, object_store, stored_folder

# TensorFlow's file systems have priority 10 (tfx/dsl/io/plugins/tensorflow_gfile.py, 1.16 and 1.21); the lowest wins.
_PRIORITY = 0


class ObjectStoreFilesystem(filesystem.Filesystem):
    """Files on object stores. A folder exists if it has a manifest, or contains an object."""

    SUPPORTED_SCHEMES = object_store.SCHEMES

    @staticmethod
    def open(name: Any, mode: str = "r") -> Any:
        """Returns an in-memory file, which is written to the store when it is closed."""
        return _File(_text(name), mode)

    @staticmethod
    def copy(src: Any, dst: Any, overwrite: bool = False) -> None:
        """Copies a file from or to an object store."""
        if not overwrite and files.exists(_text(dst)):
            raise FileExistsError(f"{_text(dst)}: already exists, expected a new name or overwrite=True")
        with _missing_as_tfx():
            files.write_chunks(_text(dst), files.chunks(_text(src)))

    @staticmethod
    def exists(path: Any) -> bool:
        """Tells whether a path is an object or a folder."""
        return files.exists(_text(path)) or ObjectStoreFilesystem.isdir(path)

    @staticmethod
    def glob(pattern: Any) -> list[Any]:
        """Not supported; the launcher does not need it."""
        raise NotImplementedError(f"{_text(pattern)}: patterns are not supported on object stores, expected a path")

    @staticmethod
    def isdir(path: Any) -> bool:
        """Tells whether a folder has a manifest, or contains an object."""
        folder = _text(path).rstrip("/")
        return stored_folder.is_published(folder) or next(object_store.objects(folder), None) is not None

    @staticmethod
    def listdir(path: Any) -> list[Any]:
        """Returns the names of the files and folders in a folder."""
        return list(files.list_names(_text(path)))

    @staticmethod
    def makedirs(path: Any) -> None:
        """Does nothing: object stores have no folders."""

    @staticmethod
    def mkdir(path: Any) -> None:
        """Does nothing: object stores have no folders."""

    @staticmethod
    def remove(path: Any) -> None:
        """Removes a file if it exists."""
        files.remove(_text(path))

    @staticmethod
    def rename(src: Any, dst: Any, overwrite: bool = False) -> None:
        """Copies a file, then removes it."""
        ObjectStoreFilesystem.copy(src, dst, overwrite)
        files.remove(_text(src))

    @staticmethod
    def rmtree(path: Any) -> None:
        """Removes a folder if it exists, its manifest first."""
        stored_folder.remove(_text(path))

    @staticmethod
    def stat(path: Any) -> Any:
        """Not supported; the launcher does not need it."""
        raise NotImplementedError(f"{_text(path)}: stat is not supported on object stores")

    @staticmethod
    def walk(
        top: Any, topdown: bool = True, onerror: Callable[..., None] | None = None
    ) -> Iterable[tuple[Any, list[Any], list[Any]]]:
        """Not supported; the launcher does not need it."""
        raise NotImplementedError(f"{_text(top)}: walk is not supported on object stores")


class _File(io.BytesIO):
    """An in-memory file of an object store; text, unless the mode contains `b`."""

    def __init__(self, path: str, mode: str) -> None:
        self._path, self._mode = path, mode
        with _missing_as_tfx():
            super().__init__(b"" if "w" in mode else files.read_bytes(path))

    def read(self, size: int | None = -1) -> Any:
        """Returns bytes, or text."""
        content = super().read(size)
        return content if "b" in self._mode else content.decode()

    def write(self, content: Any) -> int:
        """Takes bytes or text."""
        return super().write(content.encode() if isinstance(content, str) else content)

    def close(self) -> None:
        """Writes the object if the file was opened for writing."""
        if not self.closed and "w" in self._mode:
            files.write_bytes(self._path, self.getvalue())
        super().close()


@contextlib.contextmanager
def _missing_as_tfx() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise filesystem.NotFoundError(str(error)) from error


def _text(path: Any) -> str:
    return path.decode() if isinstance(path, bytes) else path


def register() -> None:
    """Registers object stores with TFX's fileio, in this process."""
    filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(ObjectStoreFilesystem, _PRIORITY)
