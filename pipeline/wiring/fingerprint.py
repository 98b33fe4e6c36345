"""Hashes of source code, for the cache keys of components.

TFX hashes a component's inputs and properties, but not the code that it imports by dotted path. With a hash among the
properties, edited code is not taken from the cache.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

FIRST_PARTY = ("components", "pipeline", "serving", "trainer")


@functools.cache
def source_hash(*modules: str) -> str:
    """Returns a hash, 16 hexadecimal digits, of modules and all first-party modules that they import, directly or not.

    It includes the data files (templates, styles, descriptions) in the packages of these modules.
    """
    digest = hashlib.sha256()
    for path in sorted(_closure(modules)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _closure(modules: tuple[str, ...]) -> set[Path]:
    """Returns the source and data files of modules and their first-party imports."""
    files: set[Path] = set()
    seen: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _source_file(name)
        if path is None:
            continue
        files.add(path)
        files.update(_data_files(path))
        pending.extend(_first_party_imports(path))
    return files


def _source_file(module: str) -> Path | None:
    """Returns a module's file; None if the name is an attribute, as in `from package import name`."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _data_files(path: Path) -> set[Path]:
    """Returns the data files in a module's package and its subfolders, except hidden files and backups (ending in ~).

    Top-level packages have none of their own.
    """
    if path.parent.name in FIRST_PARTY:
        return set()
    return {
        file
        for file in path.parent.rglob("*")
        if file.is_file()
        and file.suffix not in {".py", ".pyc"}
        and "__pycache__" not in file.parts
        and not file.name.startswith(".")
        and not file.name.endswith("~")
    }


def _first_party_imports(path: Path) -> set[str]:
    """Returns the dotted names of first-party modules that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] in FIRST_PARTY}
