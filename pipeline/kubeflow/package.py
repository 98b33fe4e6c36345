"""A compiled pipeline as a file: its name, its version and its parameters, read without the kfp SDK.

A version is named after the file's content, so the same pipeline is the same version wherever it is uploaded.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from components.errors import UsageError

_DIGITS = 12

# Kubeflow's types of parameters, with what YAML reads for each.
_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a pipeline: Kubeflow's name of its type, and whether a run must name a value."""

    type: str
    required: bool


@dataclasses.dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        path: the YAML file.
        name: the pipeline's name.
        version: 12 hexadecimal digits that stand for the file's content.
        parameters: by name.
    """

    path: str
    name: str
    version: str
    parameters: Mapping[str, Parameter]


def read_package(path: str) -> Package:
    """Reads a compiled pipeline. Raises UsageError where the file is none."""
    try:
        content = Path(path).read_bytes()
        spec: Any = next(iter(yaml.safe_load_all(content)), None)
        name = spec["pipelineInfo"]["name"]
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); expected a compiled pipeline. "
            "Write one with: segpipe kubeflow compile --out pipeline.yaml"
        ) from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise UsageError(
            f"{path}: found no Kubeflow pipeline, expected what `segpipe kubeflow compile` writes for Kubeflow"
        ) from None
    parameters = {
        key: Parameter(value["parameterType"], not (value.get("isOptional") or "defaultValue" in value))
        for key, value in inputs.items()
    }
    return Package(path, name, hashlib.sha256(content).hexdigest()[:_DIGITS], parameters)


def read_arguments(package: Package, assignments: Iterable[str]) -> dict[str, Any]:
    """Turns `epochs=20` and the like into a run's parameters.

    Raises:
        UsageError: an unknown parameter, a value of another type, or a required one that is missing.
    """
    arguments: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name:
            raise UsageError(f"--param {assignment}: expected name=value, such as epochs=20")
        if name not in package.parameters:
            near = difflib.get_close_matches(name, package.parameters, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(package.parameters) or 'none'}"
            raise UsageError(f"--param {name}: {package.path} has no such parameter; {hint}")
        arguments[name] = _read(name, text, package.parameters[name].type)
    missing = [name for name, parameter in package.parameters.items() if parameter.required and name not in arguments]
    if missing:
        raise UsageError(
            f"{package.path}: parameter {missing[0]} has no default; name it with --param {missing[0]}=..."
        )
    return arguments


def _read(name: str, text: str, kind: str) -> Any:
    if kind == "STRING":
        return text
    try:
        # YAML takes 1e-3, without a point, for text.
        value = float(text) if kind == "NUMBER_DOUBLE" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        value = text
    expected = _TYPES.get(kind, (object,))
    # In Python a truth value is an integer too.
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
        raise UsageError(f"--param {name}: found {text!r}, expected {kind}")
    return value
