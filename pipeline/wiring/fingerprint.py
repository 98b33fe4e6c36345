"""Hashes of source code, for the cache keys of components.

TFX hashes a component's inputs and properties, but not the code that it imports by dotted path. With a hash among the
properties, edited code is not taken from the cache.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
from pathlib import Path

FIRST_PARTY = ("components", "pipeline", "serving", "trainer")
# Fields of the syntax tree with the statements inside a statement.
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


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
    sources: dict[str, Path | None] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name in sources:
            continue
        path = sources[name] = _source_file(name)
        if path is not None:
            imported = _imports(path.read_bytes())
            pending.extend(each for each in imported if each.split(".")[0] in FIRST_PARTY)
    found = {path for path in sources.values() if path is not None}
    folders = {path.parent for path in found}
    return found.union(*(_data_files(folder) for folder in folders))


def _source_file(module: str) -> Path | None:
    """Returns a module's file; None if the name is an attribute, as in `from package import name`."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _data_files(package: Path) -> set[Path]:
    """Returns the data files in a package and its subfolders, except hidden files and backups (ending in ~).

    Top-level packages have none of their own.
    """
    if package.name in FIRST_PARTY:
        return set()
    found = [Path(folder, name) for folder, _, names in os.walk(package) for name in names]
    return {
        path
        for path in found
        if not path.name.endswith((".py", ".pyc", "~"))
        and not path.name.startswith(".")
        and "__pycache__" not in path.parts
        and path.is_file()
    }


@functools.cache
def _imports(source: bytes) -> frozenset[str]:
    """Returns the dotted names of modules that a source file imports, also inside functions.

    Cached, because several components import the same modules. This saves about a second of each start.
    """
    names: set[str] = set()
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        # Imports are statements, so expressions, which are most of the tree, are skipped.
        for block in _BLOCKS:
            pending.extend(getattr(node, block, ()))
    return frozenset(names)
