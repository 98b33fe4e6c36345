"""Lists the versions below a model's base path and selects those to serve by the version policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from components import files


def list_versions(base_path: str) -> dict[int, str] | None:
    """Returns the path of each version below a base path, by number; None if the base path cannot be listed.

    Source: `file_system_storage_path_source.cc` of TensorFlow Serving at 9d981c5. Every child whose name
    `absl::SimpleAtoi` parses as an int64 is a version (ParseVersionNumber), whatever it contains. If several names
    parse to the same number, the last in sorted order wins (IndexChildrenByVersion). If the base path cannot be
    listed, nothing changes (PollFileSystemForServable).
    """
    try:
        names = sorted({name.partition("/")[0] for name in tf.io.gfile.listdir(base_path)})
    except tf.errors.OpError:
        return None
    numbers = {name: _parse(name) for name in names}
    return {number: files.join(base_path, name) for name, number in numbers.items() if number is not None}


def choose_versions(policy: Any, found: Mapping[int, str]) -> set[int]:
    """Returns the version numbers that a `ServableVersionPolicy` selects; an empty policy selects the latest."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific":
        return set(policy.specific.versions) & set(found)
    if choice == "all":
        return set(found)
    return set(sorted(found, reverse=True)[: max(policy.latest.num_versions, 1)])


def _parse(name: str) -> int | None:
    """Returns a version number, or None. Like absl, allows surrounding spaces and a sign, but no "_"."""
    try:
        number = int(name)
    except ValueError:
        return None
    return number if name.isascii() and "_" not in name and -(2**63) <= number < 2**63 else None
