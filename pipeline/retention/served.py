"""Finds the versions of a model that its servers are configured to serve."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from components.errors import ReleaseError


def named_versions(config_files: Sequence[str], base: str, numbers: Collection[int]) -> set[int]:
    """Returns the versions that servers load, according to their --model_config_file.

    A model matches if its name, or the last part of its `base_path`, is the name of the directory of versions.

    Args:
        config_files: the files, read on each call.
        base: directory of the versions, local or on an object store.
        numbers: the existing versions.

    Raises:
        ReleaseError: a file cannot be read, or is not a model server configuration.
    """
    # TensorFlow Serving's configuration messages do not import TensorFlow.
    from serving.release.configuration import choose_versions, parse

    named: set[int] = set()
    for path in config_files:
        try:
            with open(path) as file:
                text = file.read()
        except OSError as error:
            raise ReleaseError(f"{path}: {error.strerror}; expected a readable --model_config_file") from None
        for model in parse(text, path).model_config_list.config:
            if _last(base) not in (model.name, _last(model.base_path)):
                continue
            named |= set(model.version_labels.values())
            named |= choose_versions(model, numbers)
    return named


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
