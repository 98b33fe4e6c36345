"""Memory that this process may use."""

from __future__ import annotations

import pathlib

_MEMINFO = pathlib.Path("/proc/meminfo")
_STATUS = pathlib.Path("/proc/self/status")

# Memory limit and usage of this process's control group (container), version 2 and version 1.
_CONTROL_GROUPS = (
    (pathlib.Path("/sys/fs/cgroup/memory.max"), pathlib.Path("/sys/fs/cgroup/memory.current")),
    (
        pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        pathlib.Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available() -> int:
    """Returns the bytes that can be allocated before the machine swaps or the container is killed."""
    bounds = [_free_in_group(*paths) for paths in _CONTROL_GROUPS]
    return min(bound for bound in (_field(_MEMINFO, "MemAvailable"), *bounds) if bound is not None)


def total() -> int:
    """Returns the bytes of the machine, or the container's limit if it is lower."""
    bounds = [_number(limit) for limit, _ in _CONTROL_GROUPS]
    return min(bound for bound in (_field(_MEMINFO, "MemTotal"), *bounds) if bound is not None)


def peak() -> int:
    """Returns the most bytes that this process has had in memory.

    getrusage(2) also counts the memory of the process that started this one, as Linux keeps it across exec(2).
    """
    return _field(_STATUS, "VmHWM")


def _field(path: pathlib.Path, name: str) -> int:
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


def _free_in_group(limit: pathlib.Path, use: pathlib.Path) -> int | None:
    bound, used = _number(limit), _number(use)
    return None if bound is None or used is None else max(0, bound - used)


def _number(path: pathlib.Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        # No such control group, or no limit ("max").
        return None
