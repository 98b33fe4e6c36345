"""Chooses how training is spread over devices and machines, and what devices tell each other within a step.

One device needs nothing; several GPUs of a machine mirror the network; a `TF_CONFIG` that names
several workers mirrors it over machines. The global batch is what all devices take in one step.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from components.errors import SegpipeError
from trainer.cluster import TF_CONFIG, Worker, this_worker
from trainer.sharding import Sharding


def choose() -> tf.distribute.Strategy:
    """Returns the strategy in whose scope the model is built.

    With several workers it waits until all of them are there. Call it before TensorFlow computes
    anything, as it says how TensorFlow is to use its GPUs and the network.

    Raises:
        UsageError: for a malformed `TF_CONFIG`.
        SegpipeError: when TensorFlow has computed something, or the other workers cannot be reached.
    """
    worker = this_worker()
    if worker.workers > 1:
        return _multi_worker(worker)
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def total(value: tf.Tensor) -> tf.Tensor:
    """Adds up a tensor over all devices, inside a training step; its gradient goes back to all of them.

    A loss that is a quotient of sums over the batch becomes the loss of the global batch when each
    sum goes through here. With one device the value is returned as it is.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def share_statistics(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Lets batch normalisation measure the global batch, where several devices share it."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = strategy.num_replicas_in_sync > 1


def sharding(strategy: tf.distribute.Strategy) -> Sharding:
    """Returns which of all shards this process's devices read."""
    worker = this_worker() if strategy.num_replicas_in_sync > 1 else Worker()
    return Sharding(worker.index, worker.workers, strategy.num_replicas_in_sync // worker.workers)


def distribute(
    strategy: tf.distribute.Strategy, batches: tf.data.Dataset
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Returns the batches of this process, on the device that takes them.

    Args:
        strategy: the strategy in whose `run` the batches are taken.
        batches: one for each device of this process, in turn.
    """
    if strategy.num_replicas_in_sync == 1:
        gpus = tf.config.list_logical_devices("GPU")
        # Copied while the step before still computes.
        return batches.apply(tf.data.experimental.prefetch_to_device(gpus[0].name)) if gpus else batches
    # TensorFlow has all workers ask each other before every step whether a finite data set goes
    # on. The training counts its steps and never asks for one too many.
    endless = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return strategy.distribute_datasets_from_function(lambda _: endless)


def gather(strategy: tf.distribute.Strategy, values: Sequence[int]) -> list[list[int]]:
    """Returns the values of each process, in order. All of them must call it, with as many values each."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return [list(values)]

    def all_values() -> tf.Tensor:
        own = tf.constant(list(values), tf.int64)
        place = tf.distribute.get_replica_context().replica_id_in_sync_group
        return total(tf.one_hot(place, replicas, dtype=tf.int64)[:, tf.newaxis] * own)

    shared = tf.function(lambda: strategy.run(all_values))()
    of_devices = strategy.experimental_local_results(shared)[0].numpy().tolist()
    return of_devices[:: sharding(strategy).devices]


def agree(strategy: tf.distribute.Strategy, values: Sequence[int]) -> list[int]:
    """Returns the chief's values on every worker. All workers must call it, with as many values each."""
    return gather(strategy, values)[0]


def _multi_worker(worker: Worker) -> tf.distribute.Strategy:
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise SegpipeError(
            f"Trainer: worker {worker.index} of {worker.workers} cannot join the others, as TensorFlow has already "
            f"computed something in this process ({error}); train in a process of its own"
        ) from error
    except tf.errors.OpError as error:
        raise SegpipeError(
            f"Trainer: worker {worker.index} of {worker.workers} cannot reach the others ({error.message}); check "
            f"the addresses in {TF_CONFIG}, and that all workers run"
        ) from error
