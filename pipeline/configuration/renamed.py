"""Settings that had another name in the version before this one, and settings that are gone."""

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

# Values that switched them off. Each was tried and lost accuracy, or was never tried: docs/recipe.md.
REMOVED = {"training.color": 0, "training.exposure": 1, "training.blur": 0}


def with_new_names(values: Mapping[str, Any], source: str, prefix: str = "") -> dict[str, Any]:
    """Returns nested settings under their names of this version, and logs a warning for each that had another.

    Args:
        values: nested settings.
        source: where they come from, for messages.
        prefix: the group that they are in, with a dot at its end.

    Raises:
        UsageError: both names of a setting are given, or a setting that is gone is switched on.
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        new = _NEW_NAMES.get(name, name)
        if name in REMOVED:
            if value != REMOVED[name]:
                raise UsageError(f"{source}: {name}: found {value!r}, but this setting was removed; remove it too")
            continue
        if new != name:
            key = new.rpartition(".")[2]
            if key in values:
                raise UsageError(f"{source}: found {name} and its new name {new}, expected only {new}")
            _warn(source, name, new)
        result[key] = with_new_names(value, source, f"{name}.") if isinstance(value, Mapping) else value
    return result


@functools.cache  # A configuration is read several times in a command.
def _warn(source: str, name: str, new: str) -> None:
    logging.getLogger(__name__).warning("%s: %s is now %s; the next version drops the old name", source, name, new)
