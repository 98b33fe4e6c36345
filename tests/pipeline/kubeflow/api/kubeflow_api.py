"""Kubeflow's published v2beta1 API, from an excerpt of its swagger: operations and their schemas."""

import json
import re
from pathlib import Path

import jsonschema

_API = json.loads((Path(__file__).parent / "kubeflow_api.json").read_text())


def find_operation(method, path):
    for template, operations in _API["paths"].items():
        match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", template), path)
        if match and method.lower() in operations:
            return template, match.groupdict(), operations[method.lower()]
    return None


def slug(template):
    """Returns the name of a path's method: the path's words, with `one` for a single item."""
    words = re.sub(r"\{\w+\}", "", template.removeprefix("/apis/v2beta1/")).replace(":", "/").split("/")
    slug = "_".join(word for word in words if word)
    return "runs_one" if template.endswith("runs/{run_id}") else slug


def validate(content, schema):
    # `jsonschema.validate` would check the schema itself at every call.
    jsonschema.Draft4Validator({**_lenient(schema), "definitions": _DEFINITIONS}).validate(content)


def _lenient(schema):
    """Accepts numbers for 64-bit integers and rejects unknown fields, like the server."""
    if isinstance(schema, dict):
        if schema.get("format") == "int64":
            return {"type": ["string", "integer"]}
        converted = {key: _lenient(value) for key, value in schema.items()}
        if "properties" in schema and schema.get("type") == "object" and schema["properties"]:
            converted.setdefault("additionalProperties", False)
        return converted
    return [_lenient(item) for item in schema] if isinstance(schema, list) else schema


_DEFINITIONS = _lenient(_API["definitions"])
