"""Assigns the examples of a split to devices."""

from __future__ import annotations

import dataclasses

# Whole files are assigned to devices if no shard exceeds the mean by more than this fraction.
_LARGEST_EXCESS = 0.1


@dataclasses.dataclass(frozen=True)
class Sharding:
    """The place of a process among those that train together. Each of its devices has a shard of every split.

    Attributes:
        index: 0-based number of the process.
        processes: number of processes.
        devices: number of devices of each process.
    """

    index: int = 0
    processes: int = 1
    devices: int = 1

    @property
    def replicas(self) -> int:
        """Number of devices of all processes."""
        return self.processes * self.devices

    @property
    def own(self) -> range:
        """Indices of this process's devices among those of all processes."""
        return range(self.index * self.devices, (self.index + 1) * self.devices)


# All examples on one device.
WHOLE = Sharding()


def assign(sizes: dict[str, int], replicas: int) -> list[list[str]] | None:
    """Assigns whole files to devices, the largest first, each to the device with the smallest load.

    Args:
        sizes: bytes of each file.
        replicas: number of devices.

    Returns:
        The files of each device; None if that is too uneven, so that each device must read every n-th record instead.
    """
    files: list[list[str]] = [[] for _ in range(replicas)]
    loads = [0] * replicas
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        files[least].append(name)
        loads[least] += sizes[name]
    mean = sum(loads) / replicas
    return files if max(loads) <= (1 + _LARGEST_EXCESS) * mean and all(files) else None
