"""Settings of what is kept when disk is freed."""

from __future__ import annotations

import re

from pydantic import Field

from components.errors import UsageError
from components.settings import Settings

_AGE = r"\d+[hd]"
_SECONDS = {"h": 3600, "d": 86400}


class RetentionSettings(Settings):
    """What `segpipe gc` keeps."""

    keep_runs: int = Field(20, ge=1, description="newest runs of each project that `segpipe gc` keeps")
    keep_versions: int = Field(
        5,
        ge=1,
        description="newest versions of each served model that `segpipe gc` keeps, and newest blessed models, at"
        " least gate.best_of, each with the run it is from",
    )
    older_than: str = Field(
        "0d", pattern=f"^{_AGE}$", description="least age of what `segpipe gc` removes, in hours or days, as 12h or 30d"
    )
    stopped_after: str = Field(
        "7d",
        pattern=f"^{_AGE}$",
        description="time after which a run on Kubeflow that has not ended and writes nothing counts as stopped",
    )
    served_by: tuple[str, ...] = Field(
        (), description="files that model servers take as --model_config_file; the versions they name are kept"
    )
    after_run: bool = Field(False, description="free disk at the end of each `segpipe run`")


def seconds(age: str, where: str = "age") -> float:
    """Reads `12h` or `30d`. Raises UsageError, naming the option, for anything else."""
    if not re.fullmatch(_AGE, age):
        raise UsageError(f"{where}: found {age!r}, expected hours or days, such as 12h or 30d")
    return int(age[:-1]) * _SECONDS[age[-1]]
