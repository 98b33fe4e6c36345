"""Path patterns of a data set's layout, such as `{split}annot/{name}.png`, as regular expressions.

A pattern always matches a whole path, so `{split}/{name}` never takes a file of `trainannot/`.
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
    """A compiled path pattern; a path matches in either Unicode form, and the match's groups are in NFC."""

    expression: re.Pattern[str]

    def fullmatch(self, path: str) -> re.Match[str] | None:
        """Matches a whole path relative to the data root."""
        return self.expression.fullmatch(normalize(path))


def placeholders(pattern: str) -> list[str]:
    """Returns everything in braces in a pattern, in order, known or not."""
    return re.findall(r"\{[^{}]*\}", pattern)


def compile_pattern(pattern: str, folders: Iterable[str], extensions: Iterable[str]) -> PathPattern:
    """Compiles a path pattern; its groups are `name`, `split` and `sequence`, as far as the pattern has them.

    Args:
        pattern: a path relative to the data root. `{name}` is the pair's name, `{split}` one of
            `folders`, `{sequence}` one folder or several nested ones, `*` any characters within one path
            part and `**/` any number of folders.
        folders: the folder names `{split}` stands for.
        extensions: appended as alternatives if the pattern ends without an extension of its own;
            in any case, upper and lower.
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
    """Returns the pair's name of a matched path, unique within its split: it begins with the `{sequence}`, if any."""
    sequence = match.groupdict().get("sequence")
    return f"{sequence}/{match['name']}" if sequence else match["name"]


def fill(pattern: str, name: str, folder: str) -> str:
    """Returns the path that a pattern stands for, given a name of `name_of`; `*` is left as it is."""
    sequence, _, frame = name.rpartition("/")
    return pattern.replace(NAME, frame).replace(SEQUENCE, sequence).replace(SPLIT, folder)


def folder_of(pattern: str, folder: str) -> str:
    """Returns the folder a pattern's files lie in, with a closing slash; `./` for the root itself."""
    parent = pattern.replace(SPLIT, folder).rpartition("/")[0]
    return f"{parent or '.'}/"


def extension_of(pattern: str) -> str:
    """Returns the extension a pattern ends in, without its dot; empty when it leaves that open."""
    return _split_extension(pattern)[1]


def without_extension(pattern: str) -> str:
    """Returns a pattern without the extension that it ends in, if any."""
    return _split_extension(pattern)[0]


def _split_extension(pattern: str) -> tuple[str, str]:
    stem, dot, extension = pattern.rpartition(".")
    if dot and re.fullmatch(r"[A-Za-z0-9]+", extension):
        return stem, extension
    return pattern, ""
