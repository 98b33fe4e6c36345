"""Builds a network, trains it on Transform's records and keeps the best epoch.

Start reading at `train`. `trainer.run_fn` connects it to TFX.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

# Validation images shown in TensorBoard.
_EXAMPLE_FRAMES = 3


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """Everything that determines a training.

    Attributes:
        model: the network.
        training: the recipe.
        class_map: the classes of the masks.
        input_size: height and width of the stored images in pixels.
        train_files: Transform's gzip TFRecords of the training split.
        eval_files: the same for the validation split.
        seed: makes the training repeatable; None draws one.
        log_dir: folder for TensorBoard's logs.
        base_model: folder of an earlier training's export whose weights this one starts from, or None.
        things: class indices of the classes with instances, for instance segmentation.
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
        """Semantic or instance segmentation."""
        if self.model.task == "instance":
            return InstanceTask(self.model, self.training, self.things, self.input_size)
        return SemanticTask(self.model, self.training, self.class_map, self.input_size, self.depth_scale)


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of the data.

    Attributes:
        pixels: the part that this process reads.
        facts: counts of the whole split.
    """

    pixels: DecodedSplit
    facts: SplitFacts


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """The result of a training.

    Attributes:
        model: from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes], or to the outputs of
            `mask_rcnn.model.build` or `depth_decoder.attach`; without optimizer.
        history: one entry per epoch, over all resumptions.
        epoch: 1-based epoch of the model's weights.
        policy: the Keras dtype policy of the training.
        seed: the seed used.
        score: name of the score that chose the epoch; the history has it with the prefix `val_`.
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

    Keeps the checkpoints; the caller removes them when the result is safe.

    Args:
        job: what to train.
        checkpoints: all workers must see the same folder.
        strategy: defaults to `distribution.choose`. It is not used if the last epoch is already saved, because the
            other workers may have exited.

    Returns:
        The model, or None on every worker but the chief.

    Raises:
        UsageError: the settings do not fit each other or the data, `TF_CONFIG` is malformed, or a required GPU is
            unusable.
        DataRejectedError: a split is empty or has no scored pixel, or its masks do not fit the class map.
        SegpipeError: the loss is NaN or infinite, or another worker is lost.
    """
    settings = job.training
    registry.check(job.model, job.input_size, settings)
    if settings.require_gpu:
        gpu.require_gpu(gpu.usable_gpus())
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    kept = checkpoints.read()
    if kept and kept.epoch >= settings.epochs:
        # The other workers may have exited, and nothing is left to compute with them.
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
    """Decodes this process's part of a split, and counts the whole split together with the other processes.

    Raises:
        DataRejectedError: the split is empty or has no scored pixel, or its masks do not fit the class map.
        UsageError: a device has no example.
        SegpipeError: the pixels fit neither in memory nor on the disk.
    """
    pixels = job.task.load(files, distribution.sharding(strategy))
    return Split(pixels, job.task.facts(distribution.gather(strategy, pixels.counts()), name, files))


def make_learner(job: TrainingJob, facts: SplitFacts, strategy: tf.distribute.Strategy, fresh: bool = True) -> Learner:
    """Builds a network, its optimizer and its loss, under the global dtype policy.

    Args:
        job: what to train.
        facts: counts of the training split.
        strategy: the strategy.
        fresh: False if a checkpoint provides all weights. Then neither pretrained weights nor the base model, which may
            be gone, are read.

    Raises:
        UsageError: the settings do not fit each other or the data.
    """
    settings, devices = job.training, strategy.num_replicas_in_sync
    steps = input_pipeline.steps(facts.largest_shard, settings.batch_size)
    rate = schedule.learning_rate(settings, steps, devices)
    with strategy.scope():
        model = job.task.build(pretrained=fresh and not job.base_model)
        if job.base_model and fresh:
            warm_start.load(model, job.base_model)
        registry.freeze(model, job.model, settings.frozen_blocks)
        distribution.synchronize_batch_norm(model, strategy)
        return Learner(
            job.task.objective(model, facts),
            _optimizer(model, job, rate),
            strategy,
            xla=_use_xla(job, steps, devices),
            augment=augmentation.build(settings, job.input_size, job.model.depth),
        )


def _first_state(job: TrainingJob, checkpoints: Checkpoints, strategy: tf.distribute.Strategy, policy: str) -> State:
    """Returns where the training starts, after all workers agreed on it and on the arithmetic."""
    devices = strategy.num_replicas_in_sync
    seed = random.SystemRandom().getrandbits(31) if job.seed is None else job.seed
    state = checkpoints.read() or State(seed, devices)
    if state.devices != devices and state.epoch < job.training.epochs:
        raise UsageError(
            f"checkpoints {checkpoints.folder}: found a training on {state.devices} device(s), expected {devices}; "
            f"resume it on {state.devices}, or remove the folder to restart"
        )
    if devices == 1:
        return state
    own_policy = precision.POLICIES.index(policy)
    seed, epoch, step, chief_policy = distribution.agree(strategy, [state.seed, state.epoch, state.step, own_policy])
    if (epoch, step) != (state.epoch, state.step):
        raise UsageError(
            f"checkpoints: this worker found epoch {state.epoch}, step {state.step} in {checkpoints.folder}, expected "
            f"the chief's epoch {epoch}, step {step}; use a folder that all workers share"
        )
    if chief_policy != own_policy:
        raise UsageError(
            f"training.precision: found {policy} on this worker, expected the chief's "
            f"{precision.POLICIES[chief_policy]}; set a precision that all workers support"
        )
    return dataclasses.replace(state, seed=seed)


def _use_xla(job: TrainingJob, steps: int, devices: int) -> bool:
    settings = job.training
    if settings.xla == "auto" and not registry.compiles_with_xla(job.model, settings.deep_supervision):
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
    batch_size, task = settings.batch_size, job.task
    steps, validation_steps = (input_pipeline.steps(s.facts.largest_shard, batch_size) for s in (training, validation))
    epochs = range(state.epoch, settings.epochs)
    training_loop = loop.TrainingLoop(
        learner,
        settings,
        steps,
        validation_steps,
        batches=distribution.distribute(
            strategy,
            task.decode(
                input_pipeline.training_batches(training.pixels, batch_size, steps, epochs, state.seed, skip=state.step)
            ),
        ),
        validation=distribution.distribute(
            strategy,
            task.decode(input_pipeline.evaluation_batches(validation.pixels, batch_size, validation_steps)),
        ),
        checkpoints=checkpoints,
    )
    if not cluster.this_worker().is_chief:
        return training_loop.run(state)
    progress = callbacks.Progress(settings.epochs, steps, resumed_from=state.epoch or None)
    images, truth = input_pipeline.sample(validation.pixels, _EXAMPLE_FRAMES)
    frames = images, task.class_maps(truth)
    with contextlib.closing(callbacks.TensorBoardLog(job.log_dir, job.class_map, frames, state.history)) as log:
        return dataclasses.replace(training_loop, callbacks=[log, progress]).run(state)


def _on_one_device(learner: Learner) -> keras.Model:
    """Returns the network with a single copy of its weights, on no particular device."""
    if learner.strategy.num_replicas_in_sync == 1:
        return learner.model
    model = keras.models.clone_model(learner.model)
    model.set_weights(learner.model.get_weights())
    return model
