"""The training itself: builds a network, fits it on Transform's records and keeps the best epoch.

It reads top to bottom in `train`; `trainer.run_fn` connects it with TFX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from components import gpu
from components.class_map import ClassMap
from components.errors import UsageError
from trainer import (
    augmentation,
    callbacks,
    cluster,
    distribution,
    input_pipeline,
    loop,
    optimizer,
    precision,
    schedule,
    warm_start,
)
from trainer.checkpoints import Checkpoints, State
from trainer.config import ModelSettings, TrainingSettings
from trainer.decoded import DecodedSplit, SplitFacts
from trainer.learner import Learner
from trainer.models import registry
from trainer.tasks import Task
from trainer.tasks.instance import InstanceTask
from trainer.tasks.semantic import SemanticTask

# Validation frames shown in TensorBoard.
EXAMPLE_FRAMES = 3


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """All that determines a training.

    Attributes:
        model: the network.
        training: the recipe.
        class_map: the classes of the masks.
        input_size: height and width of the stored images in pixels.
        train_files: gzip TFRecords of Transform, training split.
        eval_files: the same, validation split.
        seed: makes the training repeatable; None draws one.
        log_dir: where TensorBoard's logs go.
        base_model: folder of an earlier training's export whose weights this one starts from; None for none.
        things: class indices of the classes that have instances, for instance segmentation.
        depth_scale: value of a depth map at a distance of 1 metre.
    """

    model: ModelSettings
    training: TrainingSettings
    class_map: ClassMap
    input_size: tuple[int, int]
    train_files: Sequence[str]
    eval_files: Sequence[str]
    seed: int | None
    log_dir: str
    base_model: str | None = None
    things: tuple[int, ...] = ()
    depth_scale: float = 256

    @property
    def task(self) -> Task:
        """What the network learns."""
        if self.model.task == "instance":
            return InstanceTask(self.model, self.training, self.things, self.input_size)
        return SemanticTask(self.model, self.training, self.class_map, self.input_size, self.depth_scale)


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of the data.

    Attributes:
        pixels: what this process reads of it.
        facts: what is known of all of it.
    """

    pixels: DecodedSplit
    facts: SplitFacts


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """What a training ends with.

    Attributes:
        model: from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes], or to what
            `mask_rcnn.model.build` or `depth_decoder.attach` says; without optimizer.
        history: one entry an epoch, over all resumptions.
        epoch: 1-based epoch whose weights the model has.
        policy: the Keras dtype policy it was trained with.
        seed: the seed used.
        score: name of the score that chose the epoch, with `val_` before it in the history.
    """

    model: keras.Model
    history: list[dict[str, Any]]
    epoch: int
    policy: str
    seed: int
    score: str


def train(
    job: TrainingJob, checkpoints: Checkpoints, strategy: tf.distribute.Strategy | None = None
) -> TrainedModel | None:
    """Trains a network, from its newest checkpoint if there is one.

    The checkpoints stay; the caller removes them once the result is safe.

    Args:
        job: what to train.
        checkpoints: where states are kept; of several workers, all of them must see the same folder.
        strategy: None for what `distribution.choose` returns. A training whose last epoch is kept needs none,
            and no other worker.

    Returns:
        The model, and None on every worker but the chief.

    Raises:
        UsageError: for settings that do not fit each other or the data, a malformed `TF_CONFIG`, or a GPU that is
            required and cannot be used.
        DataRejectedError: when a split is empty or all void, or its masks do not fit the class map.
        SegpipeError: when the loss is no number any more, or another worker is lost.
    """
    settings = job.training
    registry.check(job.model, job.input_size, settings)
    if settings.require_gpu:
        gpu.require_gpu(gpu.usable_gpus())
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    kept = checkpoints.read()
    if kept and kept.epoch >= settings.epochs:
        # The other workers may have ended for good, and nothing is left to compute with them.
        if not cluster.this_worker().is_chief:
            return None
        strategy = tf.distribute.get_strategy()
    strategy = strategy or distribution.choose()
    policy = precision.detect(settings.precision)
    state = _first_state(job, checkpoints, strategy, policy)
    if state.epoch < settings.epochs:
        registry.check_batch(job.model, settings.batch_size * strategy.num_replicas_in_sync)
    training = load_split(job, "train", job.train_files, strategy)
    validation = load_split(job, "eval", job.eval_files, strategy)
    # Keras draws initial weights and dropout from the global generators.
    keras.utils.set_random_seed(state.seed)
    with precision.policy(policy):
        learner = make_learner(job, training.facts, strategy, fresh=state.values is None)
        checkpoints.restore(learner.variables, state)
        if state.epoch < settings.epochs:
            state = _run(learner, job, training, validation, checkpoints, state)
        if not cluster.this_worker().is_chief:
            return None
        epoch = state.epoch
        if settings.keep == "best":
            checkpoints.restore_best(learner.variables, state)
            epoch = state.best_epoch
        learner.keep_average()
        return TrainedModel(_on_one_device(learner), state.history, epoch, policy, state.seed, learner.score_name)


def load_split(job: TrainingJob, name: str, files: Sequence[str], strategy: tf.distribute.Strategy) -> Split:
    """Decodes what this process reads of a split, and counts all of it together with the other processes.

    Raises:
        DataRejectedError: when the split is empty, its masks do not fit the class map, or nothing in it counts.
        UsageError: when a device has no example.
        SegpipeError: when the pixels fit neither in memory nor on the disk.
    """
    pixels = job.task.load(files, distribution.sharding(strategy))
    return Split(pixels, job.task.facts(distribution.gather(strategy, pixels.counts()), name, files))


def make_learner(job: TrainingJob, facts: SplitFacts, strategy: tf.distribute.Strategy, fresh: bool = True) -> Learner:
    """Builds a network, its optimizer and its loss, under the global dtype policy.

    Args:
        job: what to train.
        facts: pixel counts of the training split.
        strategy: the strategy.
        fresh: False for a training that goes on: a checkpoint gives all weights, and what it once began with may
            be gone. An earlier training to start from gives all of them as well.

    Raises:
        UsageError: for settings that do not fit each other or the data.
    """
    settings, devices = job.training, strategy.num_replicas_in_sync
    steps = input_pipeline.steps(facts.largest_shard, settings.batch_size)
    rate = schedule.learning_rate(settings, steps, devices)
    with strategy.scope():
        model = job.task.build(pretrained=fresh and not job.base_model)
        if job.base_model and fresh:
            warm_start.load(model, job.base_model)
        registry.freeze(model, job.model, settings.frozen_blocks)
        distribution.share_statistics(model, strategy)
        return Learner(
            job.task.objective(model, facts),
            _optimizer(model, job, rate),
            strategy,
            xla=_use_xla(job, steps, devices),
            augment=augmentation.build(settings, job.input_size, job.model.depth),
        )


def validated_epochs(settings: TrainingSettings) -> frozenset[int]:
    """Returns the 1-based epochs that end with a validation: every so many, and the last."""
    return frozenset({*range(settings.validate_every, settings.epochs + 1, settings.validate_every), settings.epochs})


def _first_state(job: TrainingJob, checkpoints: Checkpoints, strategy: tf.distribute.Strategy, policy: str) -> State:
    """Returns where the training goes on, once all workers are there and agree on it and on the arithmetic."""
    devices = strategy.num_replicas_in_sync
    seed = random.SystemRandom().getrandbits(31) if job.seed is None else job.seed
    state = checkpoints.read() or State(seed, devices)
    if state.devices != devices and state.epoch < job.training.epochs:
        raise UsageError(
            f"checkpoints {checkpoints.folder}: found a training whose batches {state.devices} device(s) shared, "
            f"expected {devices}, as there are here; go on with {state.devices}, or remove the folder to train anew"
        )
    if devices == 1:
        return state
    arithmetic = precision.POLICIES.index(policy)
    seed, epoch, step, chiefs = distribution.agree(strategy, [state.seed, state.epoch, state.step, arithmetic])
    if (epoch, step) != (state.epoch, state.step):
        raise UsageError(
            f"checkpoints: the chief goes on from epoch {epoch}, step {step}, and this worker finds epoch "
            f"{state.epoch}, step {state.step} in {checkpoints.folder}; expected a folder that all workers share"
        )
    if chiefs != arithmetic:
        raise UsageError(
            f"training.precision: found {policy} on this worker's processors, expected the chief's, "
            f"{precision.POLICIES[chiefs]}; set it to one that all workers have"
        )
    return dataclasses.replace(state, seed=seed)


def _use_xla(job: TrainingJob, steps: int, devices: int) -> bool:
    settings = job.training
    if settings.xla == "auto" and not registry.compiles_with_xla(job.model):
        return False
    height, width = settings.crop_size or job.input_size
    return precision.use_xla(settings.xla, devices, settings.epochs * steps * settings.batch_size * height * width)


def _optimizer(model: keras.Model, job: TrainingJob, rate: Any) -> keras.optimizers.Optimizer:
    chosen = optimizer.build(job.training, rate, model, registry.encoder_blocks(job.model))
    # Small gradients would round to zero in float16.
    scaled = model.dtype_policy.name == "mixed_float16"
    return keras.optimizers.LossScaleOptimizer(chosen) if scaled else chosen


def _run(
    learner: Learner, job: TrainingJob, training: Split, validation: Split, checkpoints: Checkpoints, state: State
) -> State:
    settings, strategy = job.training, learner.strategy
    training_schedule = loop.TrainingSchedule(
        epochs=settings.epochs,
        steps=input_pipeline.steps(training.facts.largest_shard, settings.batch_size),
        validation_steps=input_pipeline.steps(validation.facts.largest_shard, settings.batch_size),
        validated=validated_epochs(settings),
        checkpoint_steps=settings.checkpoint_steps,
        is_chief=cluster.this_worker().is_chief,
    )
    epochs = range(state.epoch, settings.epochs)
    run = functools.partial(
        loop.run,
        learner,
        training_schedule,
        distribution.distribute(
            strategy,
            job.task.decode(
                input_pipeline.training_batches(
                    training.pixels, settings.batch_size, training_schedule.steps, epochs, state.seed, skip=state.step
                )
            ),
        ),
        distribution.distribute(
            strategy,
            job.task.decode(
                input_pipeline.evaluation_batches(
                    validation.pixels, settings.batch_size, training_schedule.validation_steps
                )
            ),
        ),
        checkpoints,
        state,
    )
    if not training_schedule.is_chief:
        return run([])
    progress = callbacks.Progress(settings.epochs, training_schedule.steps, resumed_from=state.epoch or None)
    images, truth = input_pipeline.sample(validation.pixels, EXAMPLE_FRAMES)
    frames = images, job.task.class_maps(truth)
    with contextlib.closing(callbacks.TensorBoardLog(job.log_dir, job.class_map, frames, state.history)) as log:
        return run([log, progress])


def _on_one_device(learner: Learner) -> keras.Model:
    """Returns the network with one copy of its weights, on no particular device."""
    if learner.strategy.num_replicas_in_sync == 1:
        return learner.model
    model = keras.models.clone_model(learner.model)
    model.set_weights(learner.model.get_weights())
    return model
