"""The part of TensorFlow Serving's configuration that a release changes: one model's versions and labels.

Everything else in the configuration, other models and other labels of the same model included, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from components.errors import ReleaseError
from serving.release.labels import CANARY, PREVIOUS, STABLE, Release, from_labels


def parse(text: str, source: str) -> ModelServerConfig:
    """Reads a configuration in protobuf's text format. Raises ReleaseError that names the source."""
    try:
        config = text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise ReleaseError(
            f"{source}: found {error}, expected a ModelServerConfig in text format, "
            "such as --model_config_file of TensorFlow Serving takes"
        ) from None
    if not config.model_config_list.config:
        raise ReleaseError(f"{source}: found no model_config_list with a model, expected one at least")
    return config


def to_text(config: ModelServerConfig, like: str = "") -> str:
    """Returns the text of a configuration, under the comments that open the text it replaces."""
    comments = []
    for line in like.splitlines(keepends=True):
        if not line.startswith("#"):
            break
        comments.append(line)
    return "".join(comments) + text_format.MessageToString(config)


def find_model(config: ModelServerConfig, name: str | None) -> ModelConfig:
    """Returns a model's part of the configuration, to read or to change.

    Args:
        config: what is served.
        name: the model; None where it is the only one.

    Raises:
        ReleaseError: it is not there, or none is named and there are several.
    """
    models = {model.name: model for model in config.model_config_list.config}
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if name not in models:
        found = ", ".join(sorted(models))
        raise ReleaseError(f"--model {name or '(not given)'}: expected one of the models configured: {found}")
    return models[name]


def release_of(model: ModelConfig) -> Release | None:
    """Returns the release that a model's labels describe, or None before its first."""
    return from_labels(model.version_labels)


def load_also(model: ModelConfig, versions: Iterable[int]) -> None:
    """Makes the server load versions besides the labelled ones; the labels stay."""
    _serve(model, {*model.version_labels.values(), *versions})


def set_release(model: ModelConfig, release: Release) -> None:
    """Moves the labels, and keeps exactly the labelled versions loaded."""
    for label in (STABLE, CANARY, PREVIOUS):
        model.version_labels.pop(label, None)
    for label, version in release.labels().items():
        model.version_labels[label] = version
    _serve(model, set(model.version_labels.values()))


def copy_of(config: ModelServerConfig) -> ModelServerConfig:
    """Returns the same configuration, to change."""
    copy = ModelServerConfig()
    copy.CopyFrom(config)
    return copy


def _serve(model: ModelConfig, versions: set[int]) -> None:
    model.model_version_policy.Clear()
    model.model_version_policy.specific.versions.extend(sorted(versions))
