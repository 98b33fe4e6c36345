"""Hashes of source code, for the cache keys of components that TFX reaches by dotted path.

TFX hashes a component's inputs and properties but not the code behind a dotted path; an edited
trainer would be taken from the cache. A hash among the properties closes the gap.
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
    """Returns a hash of modules and of every first-party module they import, directly or not.

    Files beside a module's own that are not Python (templates, styles, descriptions) count too
    where the module is a package or lies in one that holds such files.

    Args:
        modules: dotted names, such as "trainer.run_fn".

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(_closure(modules)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _closure(modules: tuple[str, ...]) -> set[Path]:
    """Returns the files that modules are made of, following first-party imports."""
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
    """Returns a module's file; None where the name is an attribute, as in `from package import name`."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _data_files(path: Path) -> set[Path]:
    """Returns the data files that lie in a module's own package, folders without Python included.

    What editors and systems leave behind (hidden files, copies that end in ~) is none.
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
    """Returns the dotted names of first-party modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] in FIRST_PARTY}
