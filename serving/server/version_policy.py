"""Which of the version folders below a model's base path should be served, by its version policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from components import files

_SAVED_MODELS = ("saved_model.pb", "saved_model.pbtxt")
_LARGEST = 2**63 - 1


def find_versions(base_path: str) -> dict[int, str] | None:
    """Returns the version folders below a base path, local or on an object store, by number.

    A folder without a `saved_model.pb` is not a version yet: whoever copies one writes that file last.
    Returns None for a base path that cannot be read, perhaps only for a moment.
    """
    try:
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(base_path)]
        folders = {int(name): files.join(base_path, name) for name in names if name.isascii() and name.isdigit()}
        return {number: folder for number, folder in folders.items() if number <= _LARGEST and _is_whole(folder)}
    except tf.errors.OpError:
        return None


def choose_versions(policy: Any, found: Mapping[int, str], broken: Collection[int]) -> set[int]:
    """Returns the numbers that a `ServableVersionPolicy` asks for.

    Args:
        policy: the policy; one that says nothing means the latest version.
        found: the version folders.
        broken: versions that failed to load. "Latest" passes over them, so that a server which starts
            beside a broken new version serves the last good one.
    """
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific":
        return set(policy.specific.versions) & set(found)
    if choice == "all":
        return set(found)
    wanted = max(policy.latest.num_versions, 1)
    newest = sorted(found, reverse=True)
    sound = [number for number in newest if number not in broken][:wanted]
    # A broken version stays asked for while it is among the newest: its state is kept, and a repair is noticed.
    return {*sound, *(number for number in newest[:wanted] if number in broken)}


def fingerprint(folder: str) -> tuple[tuple[str, int, int], ...]:
    """Returns names, sizes and times of a version's files, which change when somebody repairs it.

    Empty for a folder that cannot be read, perhaps only for a moment.
    """
    entries = []
    try:
        for root, _, names in tf.io.gfile.walk(folder):
            for name in names:
                try:
                    stat = tf.io.gfile.stat(files.join(root, name))
                except tf.errors.OpError:
                    continue
                entries.append((files.join(root, name), stat.length, stat.mtime_nsec))
    except tf.errors.OpError:
        return ()
    return tuple(sorted(entries))


def _is_whole(folder: str) -> bool:
    return any(tf.io.gfile.exists(files.join(folder, name)) for name in _SAVED_MODELS)
