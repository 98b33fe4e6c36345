"""Reads and changes the part of TensorFlow Serving's configuration that a release controls: versions and labels.

Other models, and other labels of the same model, stay unchanged.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from components.errors import ReleaseError
from serving.release.labels import CANARY, PREVIOUS, STABLE, Release


def parse(text: str, source: str) -> ModelServerConfig:
    """Parses a configuration in protobuf's text format; `source` names it in the ReleaseError of invalid text."""
    try:
        config = text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise ReleaseError(
            f"{source}: found {error}, expected a ModelServerConfig in text format, "
            "as for TensorFlow Serving's --model_config_file"
        ) from None
    if not config.model_config_list.config:
        raise ReleaseError(f"{source}: found no model_config_list with a model, expected at least one model")
    return config


def to_text(config: ModelServerConfig, like: str = "") -> str:
    """Returns the text of a configuration, with the leading comments of the text `like` that it replaces."""
    comments = itertools.takewhile(lambda line: line.startswith("#"), like.splitlines(keepends=True))
    return "".join(comments) + text_format.MessageToString(config)


def find_model(config: ModelServerConfig, name: str | None) -> ModelConfig:
    """Returns a model's part of the configuration, to read or to change; without a name, the only model.

    Raises ReleaseError if there is no such model, or no name and several models.
    """
    models = {model.name: model for model in config.model_config_list.config}
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if name not in models:
        found = ", ".join(sorted(models))
        raise ReleaseError(f"--model {name or '(not given)'}: expected one of the models configured: {found}")
    return models[name]


def choose_versions(model: ModelConfig, found: Collection[int]) -> set[int]:
    """Returns the version numbers that a model's policy selects; without a policy, the latest.

    Sources: tensorflow_serving/config/model_server_config.proto and
    tensorflow_serving/sources/storage_path/file_system_storage_path_source.proto.
    """
    policy = model.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific":
        return set(policy.specific.versions) & set(found)
    if choice == "all":
        return set(found)
    return set(heapq.nlargest(max(policy.latest.num_versions, 1), found))


def load_also(model: ModelConfig, versions: Iterable[int]) -> None:
    """Loads versions in addition to the labelled ones; keeps the labels."""
    _serve(model, {*model.version_labels.values(), *versions})


def set_release(model: ModelConfig, release: Release) -> None:
    """Moves the labels and keeps only the labelled versions loaded."""
    for label in (STABLE, CANARY, PREVIOUS):
        model.version_labels.pop(label, None)
    for label, version in release.labels().items():
        model.version_labels[label] = version
    _serve(model, set(model.version_labels.values()))


def _serve(model: ModelConfig, versions: set[int]) -> None:
    model.model_version_policy.Clear()
    model.model_version_policy.specific.versions.extend(sorted(versions))
