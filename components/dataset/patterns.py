"""Path patterns of a data set's layout, such as `{split}annot/{name}.png`, as regular expressions.

A pattern always matches a whole path, so `{split}/{name}` never takes a file of `trainannot/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NAME = "{name}"
SPLIT = "{split}"
_TOKEN = re.compile(r"(\{name\}|\{split\}|\*\*/|\*)")


def placeholders(pattern: str) -> list[str]:
    """Returns everything in braces in a pattern, in order, known or not."""
    return re.findall(r"\{[^{}]*\}", pattern)


def compile_pattern(pattern: str, folders: Iterable[str], extensions: Iterable[str]) -> re.Pattern[str]:
    """Turns a path pattern into a regular expression with the groups `name` and `split`.

    Args:
        pattern: a path relative to the data root. `{name}` is the pair's name, `{split}` one of
            `folders`, `*` any characters within one path part and `**/` any number of folders.
        folders: the folder names `{split}` stands for.
        extensions: appended as alternatives where the pattern ends without an extension of its own;
            in any case, upper and lower.

    Returns:
        An expression to be used with `fullmatch`.
    """
    expressions = {
        NAME: "(?P<name>[^/]+)",
        SPLIT: "(?P<split>" + "|".join(sorted(map(re.escape, folders), key=len, reverse=True)) + ")",
        "**/": "(?:.*/)?",
        "*": "[^/]*",
    }
    stem, extension = _split_extension(pattern)
    alternatives = [extension] if extension else list(extensions)
    body = "".join(expressions.get(part) or re.escape(part) for part in _TOKEN.split(stem))
    return re.compile(body + r"\.(?i:" + "|".join(map(re.escape, alternatives)) + ")")


def fill(pattern: str, name: str, folder: str) -> str:
    """Returns the path a pattern stands for, with `*` left as it is."""
    return pattern.replace(NAME, name).replace(SPLIT, folder)


def folder_of(pattern: str, folder: str) -> str:
    """Returns the folder a pattern's files lie in, with a closing slash; `./` for the root itself."""
    parent = fill(pattern, NAME, folder).rpartition("/")[0]
    return f"{parent or '.'}/"


def extension_of(pattern: str) -> str:
    """Returns the extension a pattern ends in, without its dot; empty when it leaves that open."""
    return _split_extension(pattern)[1]


def _split_extension(pattern: str) -> tuple[str, str]:
    stem, dot, extension = pattern.rpartition(".")
    if dot and re.fullmatch(r"[A-Za-z0-9]+", extension):
        return stem, extension
    return pattern, ""
