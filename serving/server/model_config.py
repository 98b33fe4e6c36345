"""Reads and checks the `ModelServerConfig` to serve: from a file, a gRPC call or the flags of a single model."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components import files
from components.errors import UsageError
from serving.server.errors import ServingError, failed_precondition, invalid_argument
from serving.server.options import ServeOptions
from serving.server.text_protos import read_text_proto


def check_config(config: Any) -> list[Any]:
    """Returns the `ModelConfig`s of a configuration. Raises ServingError if one cannot be served."""
    if config.WhichOneof("config") == "custom_model_config":
        raise failed_precondition("found a custom_model_config, expected a model_config_list")
    models = list(config.model_config_list.config)
    names: set[str] = set()
    for model in models:
        name, path, platform = model.name, model.base_path, model.model_platform
        if name in names:
            raise invalid_argument(f"Illegal to list model {name} multiple times in config list")
        names.add(name)
        if not name:
            raise invalid_argument("Found a ModelConfig without a name, expected the name for requests")
        if not files.is_remote(path) and not path.startswith("/"):
            raise invalid_argument(f"Expected model {name} to have an absolute path or URI; got base_path()={path}")
        # The deprecated field model_type is TENSORFLOW = 1.
        if platform != "tensorflow" and (platform or model.model_type != 1):
            raise invalid_argument(f'Model {name}: found model_platform "{platform}", expected "tensorflow"')
    return models


def read_model_config(path: str) -> Any:
    """Reads a text `ModelServerConfig`. Raises UsageError."""
    return read_text_proto("--model_config_file", path, ModelServerConfig())


def first_config(options: ServeOptions) -> Any:
    """Returns the `ModelServerConfig` of the flags. Raises UsageError if it can never be applied."""
    path = options.model_config_file
    config = ModelServerConfig() if path is None else read_model_config(path)
    if path is None:
        add = config.model_config_list.config.add
        add(name=options.model_name, base_path=options.model_base_path, model_platform="tensorflow")
    try:
        models = check_config(config)
    except ServingError as error:
        raise UsageError(f"{path or '--model_base_path'}: {error.message}") from None
    labelled = [model.name for model in models if model.version_labels]
    if labelled and not options.allow_version_labels_for_unavailable_models:
        raise UsageError(
            f"--model_config_file {path}: found version_labels of model {labelled[0]}, expected no labels because no "
            "version is loaded at startup; add --allow_version_labels_for_unavailable_models"
        )
    if options.ui and not models:
        raise UsageError(
            f"--ui: found no model in {path}, expected at least one, the first of which the page shows; "
            "add a model or leave out --ui"
        )
    return config
