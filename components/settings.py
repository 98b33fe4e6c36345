"""The base class of all settings: typed, immutable, and without unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """One group of settings; `--help` and the docs show the description of each field.

    A string may be written as a number in YAML: `cpu: 4`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True)
