"""Tells which of several training processes this one is, from the environment variable `TF_CONFIG`.

TensorFlow reads it too, but accepts a malformed value silently or waits forever.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from components.errors import UsageError

TF_CONFIG = "TF_CONFIG"

# Jobs of a TF_CONFIG that train. A job `chief` comes before the workers.
_TRAINING_JOBS = ("chief", "worker")


class _Task(BaseModel):
    type: str = ""
    index: int = -1


class _Config(BaseModel):
    cluster: dict[str, list[Annotated[str, Field(pattern=":")]]] | None = None
    task: _Task | None = None


@dataclasses.dataclass(frozen=True)
class Worker:
    """One process of a training.

    Attributes:
        index: 0-based number among the workers.
        workers: number of workers.
    """

    index: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Tells whether this worker writes checkpoints, history, logs and the export."""
        return self.index == 0


def this_worker() -> Worker:
    """Returns which worker this process is; the only one if `TF_CONFIG` is not set.

    Raises:
        UsageError: `TF_CONFIG` does not describe a cluster of workers and this process's place in it.
    """
    text = os.environ.get(TF_CONFIG, "").strip()
    return parse(text) if text else Worker()


def parse(text: str) -> Worker:
    """Returns the worker that a `TF_CONFIG` describes.

    Args:
        text: JSON such as `{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}`.

    Raises:
        UsageError: see `this_worker`.
    """
    try:
        config = _Config.model_validate_json(text)
    except ValidationError as error:
        details = error.errors()[0]
        place = ".".join(map(str, details["loc"])) or "the JSON"
        raise _malformed(f"{details['input']!r} as {place} ({details['msg']})", "TensorFlow's format") from error
    cluster, task = config.cluster or {}, config.task or _Task()
    sizes = {job: len(cluster.get(job, ())) for job in _TRAINING_JOBS}
    if cluster.get("ps"):
        raise _malformed("the job ps", "only chief and worker; parameter servers are not supported")
    if not any(sizes.values()):
        if cluster:
            raise _malformed(f"the jobs {sorted(cluster)}", "a job worker with the address of each worker")
        return Worker()
    job, index = task.type, task.index
    if not sizes.get(job):
        jobs = " or ".join(name for name, size in sizes.items() if size)
        raise _malformed(f"task.type is {job!r}", f"{jobs}, as in cluster")
    if not 0 <= index < sizes[job]:
        raise _malformed(f"task.index is {index!r}", f"0 to {sizes[job] - 1}, as cluster.{job} has {sizes[job]}")
    return Worker(index + (sizes["chief"] if job == "worker" else 0), sum(sizes.values()))


def _malformed(found: str, expected: str) -> UsageError:
    return UsageError(
        f"{TF_CONFIG}: found {found}, expected {expected}; correct this environment variable, for example to "
        '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
    )
