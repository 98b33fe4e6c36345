"""Settings that were renamed or removed since the previous version."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

from components.errors import UsageError

RENAMED = {
    "normalize_exposure": "auto_exposure",
    "data.held_out_fraction": "data.held_out_share",
    "data.max_quarantined_fraction": "data.max_quarantined_share",
    "training.encoder_lr_multiplier": "training.encoder_rate",
    "training.focal_weight": "training.focal",
    "training.dice_weight": "training.dice",
    "training.lovasz_weight": "training.lovasz",
}
_NEW_NAMES = {old: new for new, old in RENAMED.items()}

# The value that disabled each setting. The first two lost accuracy (docs/recipe.md); blur was never measured.
REMOVED = {"training.color": 0, "training.exposure": 1, "training.blur": 0}


def with_new_names(values: Mapping[str, Any], source: str, prefix: str = "") -> dict[str, Any]:
    """Returns nested settings under their current names, and logs a warning for each renamed one.

    `source` is their origin, for messages; `prefix` their group, with a dot at its end.

    Raises:
        UsageError: both names of a setting are given, or a removed setting is enabled.
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        new = _NEW_NAMES.get(name, name)
        if name in REMOVED:
            if value != REMOVED[name]:
                raise UsageError(f"{source}: {name}: found {value!r}, but this setting was removed; delete it")
            continue
        if new != name:
            key = new.rpartition(".")[2]
            if key in values:
                raise UsageError(f"{source}: found {name} and its new name {new}, expected only {new}")
            _warn(source, name, new)
        result[key] = with_new_names(value, source, f"{name}.") if isinstance(value, Mapping) else value
    return result


def stored_values(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's stored settings under their current names, without removed settings that were disabled.

    `flat` has the values by dotted name.
    """
    kept = {name: value for name, value in flat.items() if name not in REMOVED or value != REMOVED[name]}
    return {_NEW_NAMES.get(name, name): value for name, value in kept.items()}


@functools.cache  # A command reads the configuration several times.
def _warn(source: str, name: str, new: str) -> None:
    logging.getLogger(__name__).warning("%s: %s is now %s; the next version drops the old name", source, name, new)
