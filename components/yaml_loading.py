"""Reads YAML as its specification has it, where PyYAML takes the last of several equal keys without a word."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain values, with keys that must be unique (YAML 1.2.2, section 3.2.1.3)."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Composes a mapping. Raises ConstructorError where it has a key twice."""
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], Any] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            before = first.setdefault((key.tag, key.value), key.start_mark)
            if before is not key.start_mark:
                whole = "as a list, <<: [*one, *other]" if key.value == "<<" else "with all that belongs to it"
                raise yaml.constructor.ConstructorError(
                    f"found {key.value!r} twice, expected it once, {whole}; first",
                    before,
                    "and again",
                    key.start_mark,
                )
        return node


def load(text: str) -> Any:
    """Returns the plain values of a YAML text. Raises yaml.YAMLError where it is none, or has a key twice."""
    return yaml.load(text, _Loader)
