"""The base of all settings: typed, unknown keys refused, values fixed after validation."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """One group of settings; every field carries its description, which `--help` and the docs show.

    A text may be written as the number that YAML reads it as: `cpu: 4`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True)
