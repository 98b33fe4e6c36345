"""Settings of `segpipe gc`: which runs and versions it keeps."""

from __future__ import annotations

import re

from pydantic import Field

from components.errors import UsageError
from components.settings import Settings

_AGE = r"\d+[hd]"
_SECONDS = {"h": 3600, "d": 86400}


class RetentionSettings(Settings):
    """Which runs, versions and files `segpipe gc` keeps."""

    keep_runs: int = Field(20, ge=1, description="number of newest runs of each project to keep")
    keep_versions: int = Field(
        5,
        ge=1,
        description="number of newest versions of each served model to keep, and of newest blessed models (at least "
        "gate.best_of), with their runs",
    )
    older_than: str = Field(
        "0d", pattern=f"^{_AGE}$", description="remove only what is older, in hours or days, such as 12h or 30d"
    )
    stopped_after: str = Field(
        "7d",
        pattern=f"^{_AGE}$",
        description="time without writes after which an unfinished run on Kubeflow counts as stopped, such as 12h",
    )
    served_by: tuple[str, ...] = Field(
        (), description="--model_config_file files of model servers; the versions that they name are kept"
    )
    after_run: bool = Field(False, description="free disk space at the end of each `segpipe run`")


def seconds(age: str, where: str = "age") -> float:
    """Reads an age such as `12h` or `30d`. Raises UsageError, which names the option."""
    if not re.fullmatch(_AGE, age):
        raise UsageError(f"{where}: found {age!r}, expected hours or days, such as 12h or 30d")
    return int(age[:-1]) * _SECONDS[age[-1]]
