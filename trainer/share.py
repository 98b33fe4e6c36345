"""Which examples of every step a process takes, so that any number of devices makes the same steps."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process takes of every global batch.

    Position i of an epoch's order goes to device i modulo the number of all devices, so that a step
    has the same examples whatever the number of processes, in shares that differ by one at most.

    Attributes:
        index: 0-based number of the process.
        processes: number of processes.
        devices: devices of each process.
        least: least number of images a step, over all devices.
    """

    index: int = 0
    processes: int = 1
    devices: int = 1
    least: int = 1

    @property
    def replicas(self) -> int:
        """Number of devices of all processes."""
        return self.processes * self.devices

    def of(self, numbered: tf.data.Dataset) -> tf.data.Dataset:
        """Keeps this process's elements of a data set of pairs of position and element."""
        if self.processes == 1:
            return numbered
        return numbered.filter(lambda i, _: i % self.replicas // self.devices == self.index)

    def steps(self, examples: int, batch_size: int) -> int:
        """Returns how many steps an epoch has.

        Its last step takes what is left. Where that is less than an example for each device, or than the
        least of a step, the step before takes it in addition: no device can compute on an empty batch.
        None at all where the epoch itself has fewer.
        """
        whole, left = divmod(examples, batch_size * self.replicas)
        return whole + (left >= self._smallest)

    def batch(self, numbered: tf.data.Dataset, batch_size: int, examples: int) -> tf.data.Dataset:
        """Batches this process's part of an epoch: a batch for each device and step, devices taking turns.

        Args:
            numbered: position, and image and mask, of this process's elements.
            batch_size: images a step on each device.
            examples: number of examples in the epoch, over all processes.
        """
        size, step_size = batch_size * self.devices, batch_size * self.replicas
        last = self.steps(examples, batch_size) - 1
        if examples <= (last + 1) * step_size:
            batches = numbered.batch(size)
        else:
            # The most that the last step takes in addition.
            more = self.devices * math.ceil((self._smallest - 1) / self.replicas)
            batches = numbered.group_by_window(
                lambda i, _: tf.minimum(i // step_size, last),
                lambda _, window: window.batch(size + more),
                window_size_func=lambda step: size + tf.cast(step == last, tf.int64) * more,
            )
        batches = batches.map(lambda _, pairs: pairs)
        return batches if self.devices == 1 else batches.flat_map(self._split)

    @property
    def _smallest(self) -> int:
        """Least number of images that make a step of their own."""
        return max(self.replicas, self.least)

    def _split(self, images: tf.Tensor, masks: tf.Tensor) -> tf.data.Dataset:
        devices = tf.data.Dataset.range(self.devices)
        return devices.map(lambda device: (images[device :: self.devices], masks[device :: self.devices]))


# All of every step, for a training on one device.
ALL = Share()
