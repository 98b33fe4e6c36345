"""Pushes an exported model as a new version, to a local directory or an object store."""

from __future__ import annotations

from components import files
from components.errors import UsageError
from components.pusher.published import publish
from components.pusher.versions import new_version
from components.stored_folder import copy_files, explained


def push(model_path: str, base_directory: str) -> tuple[str, int]:
    """Copies a SavedModel into a new version, which readers see whole or not at all.

    Args:
        model_path: the SavedModel's directory, local or on an object store.
        base_directory: directory of the versions, local or on an object store.

    Returns:
        The version's directory and number.

    Raises:
        UsageError: there is no SavedModel.
        SegpipeError: a file cannot be read or written.
    """
    saved_model = files.join(model_path, "saved_model.pb")
    with explained(saved_model):
        if not files.exists(saved_model):
            raise UsageError(f"{model_path}: found no saved_model.pb, expected an exported model. Check the path")
    if files.is_remote(base_directory):
        return publish(model_path, base_directory)
    with new_version(base_directory) as version:
        copy_files(model_path, version.staging)
    return version.directory, version.number
