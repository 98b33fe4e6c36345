"""Which models to serve: a `ModelServerConfig`, from a file, a call or the flags for a single model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from components import files
from serving.server.errors import failed_precondition, invalid_argument

_PLATFORM = "tensorflow"


def single_model(name: str, base_path: str) -> Any:
    """Returns the configuration of one model with the default version policy, the latest version."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=_PLATFORM)
    return config


def check_config(config: Any) -> list[Any]:
    """Returns a configuration's models, `ModelConfig`. Raises ServingError as TensorFlow Serving refuses one."""
    if config.WhichOneof("config") == "custom_model_config":
        raise failed_precondition(
            "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
        )
    models = list(config.model_config_list.config)
    names: set[str] = set()
    for model in models:
        if model.name in names:
            raise invalid_argument(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
        _check_model(model)
    return models


def labels_of(models: Iterable[Any]) -> dict[str, dict[str, int]]:
    """Returns each model's version labels: the version by label."""
    return {model.name: dict(model.version_labels) for model in models}


def _check_model(model: Any) -> None:
    if not model.name:
        raise invalid_argument("Found a ModelConfig without a name, expected the name that requests will use")
    if not files.is_remote(model.base_path) and not model.base_path.startswith("/"):
        raise invalid_argument(
            f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
        )
    # The deprecated field's only usable value, TENSORFLOW, is 1.
    platform = model.model_platform or (_PLATFORM if model.model_type == 1 else "")
    if not platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    if platform != _PLATFORM:
        raise invalid_argument(f"Model {model.name} requests unsupported platform {platform}")
