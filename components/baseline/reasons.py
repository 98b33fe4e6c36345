"""Why a model is the baseline."""

from __future__ import annotations

from typing import Literal

# Empty for a model that is not a baseline.
Reason = Literal["", "served", "best_of"]

REASON_TEXTS: dict[Reason, str] = {
    "": "",
    "served": "the served version",
    "best_of": "better than the served version",
}
