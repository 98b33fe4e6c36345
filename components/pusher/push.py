"""Pushes an exported model as a new version, to a local directory or an object store."""

from __future__ import annotations

from components import files
from components.errors import UsageError
from components.pusher.published import publish
from components.pusher.versions import new_version, newest_version
from components.pusher.withdrawn import model_hash
from components.stored_folder import copy_files, explained


def push(model_path: str, base_directory: str, again: bool = True) -> tuple[str, int]:
    """Copies a SavedModel atomically into a new version.

    Args:
        model_path: the SavedModel's directory, local or on an object store.
        base_directory: directory of the versions.
        again: whether to push a model that equals the newest version; concurrent runs may push the same model.

    Returns:
        Directory and number of the version with the model.

    Raises:
        UsageError: the SavedModel does not exist.
        SegpipeError: a file cannot be read or written.
    """
    saved_model = files.join(model_path, "saved_model.pb")
    with explained(saved_model):
        if not files.exists(saved_model):
            raise UsageError(f"{model_path}: found no saved_model.pb, expected an exported model. Check the path")
    if files.is_remote(base_directory):
        known = None if again else _newest_if_equal(model_path, base_directory)
        return known or publish(model_path, base_directory)
    with new_version(base_directory) as version:
        known = None if again else _newest_if_equal(model_path, base_directory)
        if known is None:
            copy_files(model_path, version.staging)
    return known or (version.directory, version.number)


def _newest_if_equal(model_path: str, base_directory: str) -> tuple[str, int] | None:
    """Returns directory and number of the newest version if it equals the model, apart from its scores."""
    newest = newest_version(base_directory)
    if newest is None or model_hash(newest[0]) != model_hash(model_path):
        return None
    return newest
