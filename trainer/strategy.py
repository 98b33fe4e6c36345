"""Chooses how training is spread over devices and machines, and what devices tell each other within a step.

One device needs nothing; several GPUs of a machine mirror the network; a `TF_CONFIG` that names
several workers mirrors it over machines. The global batch is what all devices take in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from components.errors import SegpipeError
from trainer.cluster import TF_CONFIG, Worker, this_worker
from trainer.share import ALL, Share


def choose() -> tf.distribute.Strategy:
    """Returns the strategy in whose scope the model is built.

    With several workers it waits until all of them are there. Call it before TensorFlow computes
    anything, as it says how TensorFlow is to use its GPUs and the network.

    Raises:
        UsageError: for a malformed `TF_CONFIG`.
        SegpipeError: when TensorFlow has computed something, or the other workers cannot be reached.
    """
    worker = this_worker()
    gpus = tf.config.list_physical_devices("GPU")
    _let_memory_grow(gpus)
    if worker.workers > 1:
        return _multi_worker(worker)
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def alone() -> tf.distribute.Strategy:
    """Returns the strategy of a single device, which waits for no other worker; call it where `choose` would be."""
    _let_memory_grow(tf.config.list_physical_devices("GPU"))
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


def share_statistics(model: keras.Model, spread: tf.distribute.Strategy) -> None:
    """Lets batch normalisation measure the global batch, where several devices share it."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = spread.num_replicas_in_sync > 1


def distribute(
    spread: tf.distribute.Strategy, make: Callable[[Share], tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Returns the batches of this process, each device getting its own.

    Args:
        spread: the strategy in whose `run` the batches are taken.
        make: returns the batches of a share of every step, its devices taking turns.
    """
    if spread.num_replicas_in_sync == 1:
        return make(ALL)

    def of_process(context: tf.distribute.InputContext) -> tf.data.Dataset:
        processes = context.num_input_pipelines
        batches = make(Share(context.input_pipeline_id, processes, context.num_replicas_in_sync // processes))
        # TensorFlow has all workers ask each other before every step whether a finite data set goes
        # on. The training counts its steps and never asks for one too many.
        return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    return spread.distribute_datasets_from_function(of_process)


def agree(spread: tf.distribute.Strategy, values: Sequence[int]) -> list[int]:
    """Returns the chief's values on every worker. All workers must call it, with as many values each."""

    def chiefs() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        own = tf.constant(list(values), tf.int64)
        is_first = tf.equal(context.replica_id_in_sync_group, 0)
        return total(tf.where(is_first, own, tf.zeros_like(own)))

    shared = tf.function(lambda: spread.run(chiefs))()
    return spread.experimental_local_results(shared)[0].numpy().tolist()


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


def _let_memory_grow(gpus: Sequence[tf.config.PhysicalDevice]) -> None:
    # TensorFlow takes all memory of every GPU at its first operation otherwise.
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            # Another component of this process has used the GPUs, and chosen for us.
            return
