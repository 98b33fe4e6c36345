"""Reads a compiled pipeline's name, version and parameters from its file, without the kfp SDK.

A version is named after the file's content, so the same pipeline has the same version on every server.
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

# Kubeflow's types of parameters, and the Python types of their values in YAML.
_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


@dataclasses.dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        path: the YAML file.
        name: the pipeline's name.
        version: the first 12 hexadecimal digits of the file's SHA-256.
        parameters: by name, as in `ComponentInputsSpec.ParameterSpec` of Kubeflow's pipeline_spec.proto.
    """

    path: str
    name: str
    version: str
    parameters: Mapping[str, Mapping[str, Any]]


def read_package(path: str) -> Package:
    """Reads a compiled pipeline. Raises UsageError for any other file."""
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
            f"{path}: found no Kubeflow pipeline, expected a file that `segpipe kubeflow compile` wrote for Kubeflow"
        ) from None
    return Package(path, name, hashlib.sha256(content).hexdigest()[:_DIGITS], inputs)


def read_arguments(package: Package, assignments: Iterable[str]) -> dict[str, Any]:
    """Reads `epochs=20` and the like as the parameters of a run.

    Raises:
        UsageError: a parameter is unknown, has a value of another type, or is required and missing.
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
        arguments[name] = _read(name, text, package.parameters[name]["parameterType"])
    for name, definition in package.parameters.items():
        if not (name in arguments or "defaultValue" in definition or definition.get("isOptional")):
            raise UsageError(f"{package.path}: parameter {name} has no default; set it with --param {name}=...")
    return arguments


def _read(name: str, text: str, kind: str) -> Any:
    if kind == "STRING":
        return text
    try:
        # YAML reads 1e-3, which has no point, as text.
        value = float(text) if kind == "NUMBER_DOUBLE" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        value = text
    expected = _TYPES.get(kind, (object,))
    # In Python, bool is a subclass of int.
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
        raise UsageError(f"--param {name}: found {text!r}, expected {kind}")
    return value
