"""Compiles the path patterns of a layout, such as `{split}annot/{name}.png`, to regular expressions.

A pattern matches a whole path, so `{split}/{name}` does not match files in `trainannot/`.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable

NAME = "{name}"
SPLIT = "{split}"
SEQUENCE = "{sequence}"
_TOKEN = re.compile(r"(\{name\}|\{split\}|\{sequence\}|\*\*/|\*)")


def normalize(text: str) -> str:
    """Returns a name in Unicode's form NFC: macOS stores é as e and an accent (NFD), other systems as one character."""
    return unicodedata.normalize("NFC", text)


@dataclasses.dataclass(frozen=True)
class PathPattern:
    """A compiled path pattern. Paths match in both Unicode forms; the groups of a match are in NFC."""

    expression: re.Pattern[str]

    def fullmatch(self, path: str) -> re.Match[str] | None:
        """Matches a whole path relative to the data root."""
        return self.expression.fullmatch(normalize(path))


def placeholders(pattern: str) -> list[str]:
    """Returns all placeholders of a pattern, in order, unknown ones included."""
    return re.findall(r"\{[^{}]*\}", pattern)


def compile_pattern(pattern: str, folders: Iterable[str], extensions: Iterable[str]) -> PathPattern:
    """Compiles a path pattern; the groups `name`, `split` and `sequence` are those of its placeholders.

    Args:
        pattern: a path relative to the data root. `{name}` is the pair's name, `{split}` one of `folders`,
            `{sequence}` one or several nested folders, `*` any characters within one part of the path and `**/` any
            number of folders.
        folders: the folder names that `{split}` stands for.
        extensions: accepted extensions, in upper or lower case, if the pattern has no extension of its own.
    """
    expressions = {
        NAME: "(?P<name>[^/]+)",
        SPLIT: "(?P<split>" + "|".join(sorted(map(re.escape, map(normalize, folders)), key=len, reverse=True)) + ")",
        SEQUENCE: "(?P<sequence>.+)",
        "**/": "(?:.*/)?",
        "*": "[^/]*",
    }
    stem, extension = _split_extension(normalize(pattern))
    alternatives = [extension] if extension else list(extensions)
    body = "".join(expressions.get(part) or re.escape(part) for part in _TOKEN.split(stem))
    return PathPattern(re.compile(body + r"\.(?i:" + "|".join(map(re.escape, alternatives)) + ")"))


def name_of(match: re.Match[str]) -> str:
    """Returns the pair's name, which is unique within its split: NAME, or SEQUENCE/NAME if the pattern has both."""
    sequence = match.groupdict().get("sequence")
    return f"{sequence}/{match['name']}" if sequence else match["name"]


def fill(pattern: str, name: str, folder: str) -> str:
    """Returns a pattern with a name of `name_of` and a split's folder filled in; `*` is left as it is."""
    sequence, _, frame = name.rpartition("/")
    return pattern.replace(NAME, frame).replace(SEQUENCE, sequence).replace(SPLIT, folder)


def folder_of(pattern: str, folder: str) -> str:
    """Returns the folder of a pattern's files, with a closing slash; `./` for the data root."""
    parent = pattern.replace(SPLIT, folder).rpartition("/")[0]
    return f"{parent or '.'}/"


def extension_of(pattern: str) -> str:
    """Returns a pattern's extension without the dot; empty if it has none."""
    return _split_extension(pattern)[1]


def without_extension(pattern: str) -> str:
    """Returns a pattern without its extension."""
    return _split_extension(pattern)[0]


def _split_extension(pattern: str) -> tuple[str, str]:
    stem, dot, extension = pattern.rpartition(".")
    if dot and re.fullmatch(r"[A-Za-z0-9]+", extension):
        return stem, extension
    return pattern, ""
