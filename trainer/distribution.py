"""Chooses the `tf.distribute` strategy, and exchanges values between devices within a step.

One device needs none, several GPUs of a machine mirror the network, and a `TF_CONFIG` with several workers mirrors it
over machines. The global batch is the batch of all devices in one step.
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

    With several workers it waits for all of them. Call it before TensorFlow computes anything, because it configures
    GPUs and network.

    Raises:
        UsageError: `TF_CONFIG` is malformed.
        SegpipeError: TensorFlow has already computed something, or the other workers cannot be reached.
    """
    worker = this_worker()
    if worker.workers > 1:
        return _multi_worker(worker)
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def total(value: tf.Tensor) -> tf.Tensor:
    """Sums a tensor over all devices, inside a training step; the gradient flows back to all of them.

    Some losses are quotients of sums over the batch. If each of these sums goes through here, the result is the loss of
    the global batch. With one device the value is returned unchanged.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def synchronize_batch_norm(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Makes batch normalisation use the statistics of the global batch if there are several devices."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = strategy.num_replicas_in_sync > 1


def sharding(strategy: tf.distribute.Strategy) -> Sharding:
    """Returns the shards of this process's devices."""
    worker = this_worker() if strategy.num_replicas_in_sync > 1 else Worker()
    return Sharding(worker.index, worker.workers, strategy.num_replicas_in_sync // worker.workers)


def distribute(
    strategy: tf.distribute.Strategy, batches: tf.data.Dataset
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Returns the batches of this process, on the devices that use them.

    Args:
        strategy: the strategy whose `run` gets the batches.
        batches: one for each device of this process, in turn.
    """
    if strategy.num_replicas_in_sync == 1:
        gpus = tf.config.list_logical_devices("GPU")
        # Copies a batch while the previous step still computes.
        return batches.apply(tf.data.experimental.prefetch_to_device(gpus[0].name)) if gpus else batches
    # With a finite data set, all workers ask each other before every step whether there is another batch. The training
    # counts its steps and never reads too many, so an endless data set saves that.
    endless = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return strategy.distribute_datasets_from_function(lambda _: endless)


def gather(strategy: tf.distribute.Strategy, values: Sequence[int]) -> list[list[int]]:
    """Returns the values of each process, in order. All processes must call it, with the same number of values."""
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
    """Returns the chief's values on every worker. All workers must call it, with the same number of values."""
    return gather(strategy, values)[0]


def _multi_worker(worker: Worker) -> tf.distribute.Strategy:
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise SegpipeError(
            f"Trainer: worker {worker.index} of {worker.workers} cannot join the others, because TensorFlow has "
            f"already computed something in this process ({error}); train in a separate process"
        ) from error
    except tf.errors.OpError as error:
        raise SegpipeError(
            f"Trainer: worker {worker.index} of {worker.workers} cannot reach the others ({error.message}); check "
            f"the addresses in {TF_CONFIG}, and that all workers are running"
        ) from error
