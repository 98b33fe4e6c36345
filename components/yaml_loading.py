"""Loads YAML and rejects duplicate keys, of which PyYAML silently takes the last."""

from __future__ import annotations

from typing import Any

import yaml

from components.errors import UsageError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with unique keys (YAML 1.2.2, section 3.2.1.3)."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Composes a mapping. Raises ConstructorError for a duplicate key."""
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], Any] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            before = first.setdefault((key.tag, key.value), key.start_mark)
            if before is not key.start_mark:
                remedy = "with a list: <<: [*one, *other]" if key.value == "<<" else "with all of its values"
                raise yaml.constructor.ConstructorError(
                    f"found {key.value!r} twice, expected it once, {remedy}; first",
                    before,
                    "and again",
                    key.start_mark,
                )
        return node


def load(text: str) -> Any:
    """Returns the plain values of a YAML text. Raises yaml.YAMLError for invalid YAML and duplicate keys."""
    return yaml.load(text, _Loader)


def load_mapping(text: str, source: str) -> dict[str, Any]:
    """Returns the mapping that a YAML text holds. Raises UsageError naming the source and, if known, the line."""
    try:
        value = load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{source}: found {value!r:.80}; expected a mapping, such as `key: value` on each line")
    return value
