"""Which of the version folders below a model's base path should be served, by its version policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from components import files


def list_versions(base_path: str) -> dict[int, str] | None:
    """Returns the paths of the versions below a base path by number, or None if it cannot be listed.

    Source: `file_system_storage_path_source.cc` of TensorFlow Serving at 9d981c5. Every child whose name
    `absl::SimpleAtoi` parses as an int64 is a version (ParseVersionNumber), whatever it contains. If several names
    parse as one number, the last in order wins (IndexChildrenByVersion). A base path that cannot be listed changes
    nothing (PollFileSystemForServable).
    """
    try:
        names = sorted({name.partition("/")[0] for name in tf.io.gfile.listdir(base_path)})
    except tf.errors.OpError:
        return None
    numbers = {name: _parse(name) for name in names}
    return {number: files.join(base_path, name) for name, number in numbers.items() if number is not None}


def choose_versions(policy: Any, found: Mapping[int, str]) -> set[int]:
    """Returns the numbers of those found that a `ServableVersionPolicy` asks for; the latest if it is empty."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific":
        return set(policy.specific.versions) & set(found)
    if choice == "all":
        return set(found)
    return set(sorted(found, reverse=True)[: max(policy.latest.num_versions, 1)])


def _parse(name: str) -> int | None:
    """Returns a version number. As in absl, spaces around it and a sign are allowed; unlike in Python, "_" is not."""
    try:
        number = int(name)
    except ValueError:
        return None
    return number if name.isascii() and "_" not in name and -(2**63) <= number < 2**63 else None
