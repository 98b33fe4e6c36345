"""Modules that code names in text, for TFX or importlib, follow the order of layers in pyproject.toml too."""

import ast
import re
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

_ROOT = Path(__file__).parent.parent
_CONTRACTS = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
(_LAYERS,) = (contract["layers"] for contract in _CONTRACTS if contract["type"] == "layers")  # the highest first
_NAME = re.compile(rf"({'|'.join(_LAYERS)})\.(\w+)(\.\w+)*")


def _named_above(layer: str, source: str) -> set[str]:
    """Returns the strings that name a module, or something in it, of a layer above the source's."""
    strings = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    names = [match for text in strings if isinstance(text, str) and (match := _NAME.fullmatch(text))]
    return {name[0] for name in names if _LAYERS.index(name[1]) < _LAYERS.index(layer) and _is_module(name[1], name[2])}


def _is_module(package: str, name: str) -> bool:
    return (_ROOT / package / f"{name}.py").is_file() or (_ROOT / package / name).is_dir()


@pytest.mark.parametrize("layer", _LAYERS)
def test_a_layer_names_no_module_of_a_higher_layer(layer):
    files = (_ROOT / layer).rglob("*.py")
    assert {str(path): named for path in files if (named := _named_above(layer, path.read_text()))} == {}


def test_a_name_of_a_higher_layer_is_found():
    source = 'import_module("trainer.saved_network"), "trainer.run_fn.run_fn", "components.gates", "pipeline.yaml"'
    assert _named_above("components", source) == {"trainer.saved_network", "trainer.run_fn.run_fn"}
    assert _named_above("pipeline", source) == set()
