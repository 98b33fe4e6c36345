"""Which of several training processes this one is, as the environment variable `TF_CONFIG` tells.

TensorFlow reads that variable too, but takes a malformed one in silence or waits for ever.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from components.errors import UsageError

TF_CONFIG = "TF_CONFIG"

# Jobs of a TF_CONFIG whose tasks train; the chief is the first worker where it is named apart.
_TRAINING_JOBS = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Worker:
    """One process of a training.

    Attributes:
        index: 0-based place among the workers.
        workers: number of workers.
    """

    index: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Tells whether this worker writes what stays: checkpoints, history, logs and the export."""
        return self.index == 0


def this_worker() -> Worker:
    """Returns which worker this process is; the only one where `TF_CONFIG` is not set.

    Raises:
        UsageError: when it does not describe a cluster of workers and this process's place in it.
    """
    text = os.environ.get(TF_CONFIG, "").strip()
    return parse(text) if text else Worker()


def parse(text: str) -> Worker:
    """Returns the worker that a `TF_CONFIG` describes.

    Args:
        text: JSON such as `{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}`.

    Raises:
        UsageError: as `this_worker`.
    """
    config = _json_object(text)
    cluster = config.get("cluster") or {}
    if not isinstance(cluster, dict):
        raise _malformed(f"cluster is {cluster!r}", "an object with a list of addresses for each job")
    sizes = {job: _tasks(cluster, job) for job in _TRAINING_JOBS}
    if cluster.get("ps"):
        raise _malformed("the job ps", "only chief and worker; parameter servers are not used here")
    if not any(sizes.values()):
        if cluster:
            raise _malformed(f"the jobs {sorted(cluster)}", "a job worker with the address of each worker")
        return Worker()
    return _place(config.get("task"), sizes)


def _json_object(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise _malformed(f"text that is not JSON ({error})", "a JSON object") from error
    if not isinstance(config, dict):
        raise _malformed(f"a JSON {type(config).__name__}", "a JSON object")
    return config


def _tasks(cluster: dict[str, Any], job: str) -> int:
    addresses = cluster.get(job, [])
    if not isinstance(addresses, list) or not all(isinstance(a, str) and ":" in a for a in addresses):
        raise _malformed(f"cluster.{job} is {addresses!r}", 'a list of addresses such as "host:2222"')
    return len(addresses)


def _place(task: Any, sizes: dict[str, int]) -> Worker:
    task = task if isinstance(task, dict) else {}
    job, index = task.get("type"), task.get("index")
    if not sizes.get(job):
        named = " or ".join(name for name, size in sizes.items() if size)
        raise _malformed(f"task.type is {job!r}", f"{named}, as in cluster")
    try:
        number = int(index)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < sizes[job]:
        raise _malformed(f"task.index is {index!r}", f"0 to {sizes[job] - 1}, as cluster.{job} has {sizes[job]}")
    return Worker(number + (sizes["chief"] if job == "worker" else 0), sum(sizes.values()))


def _malformed(found: str, expected: str) -> UsageError:
    return UsageError(f"{TF_CONFIG}: found {found}, expected {expected}; correct this environment variable")
