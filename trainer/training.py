"""The training itself: builds a network, fits it on Transform's records and keeps the best epoch.

It reads top to bottom in `train`; `trainer.run_fn` connects it with TFX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from components.class_map import ClassMap
from components.errors import UsageError
from trainer import (
    augmentation,
    callbacks,
    cluster,
    deep_supervision,
    input_pipeline,
    loop,
    losses,
    optimizer,
    precision,
    schedule,
    strategy,
    warm_start,
)
from trainer.checkpoints import Checkpoints, State
from trainer.config import ModelSettings, TrainingSettings
from trainer.input_pipeline import SplitFacts
from trainer.learner import Learner
from trainer.losses import balance
from trainer.models import registry
from trainer.share import Share

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


@dataclasses.dataclass(frozen=True)
class Splits:
    """What is known of the splits before a training.

    Attributes:
        train: of the training split.
        validation: of the validation split.
    """

    train: SplitFacts
    validation: SplitFacts


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """What a training ends with.

    Attributes:
        model: from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes]; without optimizer.
        history: one entry an epoch, over all resumptions.
        epoch: 1-based epoch whose weights the model has.
        policy: the Keras dtype policy it was trained with.
        seed: the seed used.
    """

    model: keras.Model
    history: list[dict[str, Any]]
    epoch: int
    policy: str
    seed: int


def train(
    job: TrainingJob, checkpoints: Checkpoints, spread: tf.distribute.Strategy | None = None
) -> TrainedModel | None:
    """Trains a network, from its newest checkpoint if there is one.

    The checkpoints stay; the caller removes them once the result is safe.

    Args:
        job: what to train.
        checkpoints: where states are kept; of several workers, all of them must see the same folder.
        spread: the strategy; None for what `strategy.choose` finds. A training whose last epoch is kept needs none,
            and no other worker.

    Returns:
        The model, and None on every worker but the chief.

    Raises:
        UsageError: for settings that do not fit each other or the data, or a malformed `TF_CONFIG`.
        DataRejectedError: when a split is empty or all void, or its masks do not fit the class map.
        SegpipeError: when the loss is no number any more, or another worker is lost.
    """
    settings = job.training
    registry.check(job.model, job.input_size, settings)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    kept = checkpoints.read()
    if kept and kept.epoch >= settings.epochs:
        # The other workers may have ended for good, and nothing is left to compute with them.
        if not cluster.this_worker().is_chief:
            return None
        spread = strategy.alone()
    spread = spread or strategy.choose()
    policy = precision.detect(settings.precision)
    state = _first_state(job, checkpoints, spread, policy)
    if state.epoch < settings.epochs:
        registry.check_batch(job.model, settings.batch_size * spread.num_replicas_in_sync)
    splits = Splits(
        input_pipeline.count(job.train_files, job.class_map.num_classes, "train"),
        input_pipeline.count(job.eval_files, job.class_map.num_classes, "eval"),
    )
    balance.check_scored("eval", splits.validation, job.class_map)
    # Keras draws initial weights and dropout from the global generators.
    keras.utils.set_random_seed(state.seed)
    with precision.policy(policy):
        learner = make_learner(job, splits.train, spread, fresh=state.values is None)
        checkpoints.restore(learner.variables, state)
        if state.epoch < settings.epochs:
            state = _run(learner, job, splits, checkpoints, state)
        if not cluster.this_worker().is_chief:
            return None
        epoch = state.epoch
        if settings.keep == "best":
            checkpoints.restore_best(learner.variables, state)
            epoch = state.best_epoch
        learner.keep_average()
        return TrainedModel(_on_one_device(learner), state.history, epoch, policy, state.seed)


def make_learner(job: TrainingJob, facts: SplitFacts, spread: tf.distribute.Strategy, fresh: bool = True) -> Learner:
    """Builds a network, its optimizer and its loss, under the global dtype policy.

    Args:
        job: what to train.
        facts: pixel counts of the training split.
        spread: the strategy.
        fresh: False for a training that goes on: a checkpoint gives all weights, and what it once began with may
            be gone. An earlier training to start from gives all of them as well.

    Raises:
        UsageError: for settings that do not fit each other or the data.
    """
    settings, devices = job.training, spread.num_replicas_in_sync
    rate = schedule.learning_rate(settings, _training_steps(job, facts, spread), devices)
    with spread.scope():
        # Of no fixed size: it trains on windows and is validated and exported for whole images.
        pretrained = fresh and not job.base_model
        model = registry.build(job.model, None, job.class_map.num_classes, pretrained)
        if job.base_model and fresh:
            warm_start.load(model, job.base_model)
        registry.freeze(model, job.model, settings.frozen_blocks)
        strategy.share_statistics(model, spread)
        heads = registry.deep_layers(job.model) if settings.deep_supervision else ()
        return Learner(
            model,
            deep_supervision.attach(model, heads, job.class_map.num_classes),
            _optimizer(model, job, rate),
            losses.build(settings, facts, job.class_map),
            job.class_map,
            spread,
            head_weight=settings.deep_supervision,
            xla=precision.use_xla(devices),
        )


def validated_epochs(settings: TrainingSettings) -> frozenset[int]:
    """Returns the 1-based epochs that end with a validation: every so many, and the last."""
    return frozenset({*range(settings.validate_every, settings.epochs + 1, settings.validate_every), settings.epochs})


def _first_state(job: TrainingJob, checkpoints: Checkpoints, spread: tf.distribute.Strategy, policy: str) -> State:
    """Returns where the training goes on, once all workers are there and agree on it and on the arithmetic."""
    devices = spread.num_replicas_in_sync
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
    seed, epoch, step, chiefs = strategy.agree(spread, [state.seed, state.epoch, state.step, arithmetic])
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


def _optimizer(model: keras.Model, job: TrainingJob, rate: Any) -> keras.optimizers.Optimizer:
    chosen = optimizer.build(job.training, rate, model, registry.encoder_blocks(job.model))
    # Small gradients would round to zero in float16.
    scaled = model.dtype_policy.name == "mixed_float16"
    return keras.optimizers.LossScaleOptimizer(chosen) if scaled else chosen


def _run(learner: Learner, job: TrainingJob, splits: Splits, checkpoints: Checkpoints, state: State) -> State:
    settings, spread = job.training, learner.strategy
    course = loop.Course(
        epochs=settings.epochs,
        steps=_training_steps(job, splits.train, spread),
        validation_steps=_steps(
            "eval", splits.validation, settings.batch_size, Share(devices=spread.num_replicas_in_sync)
        ),
        validated=validated_epochs(settings),
        checkpoint_steps=settings.checkpoint_steps,
        is_chief=cluster.this_worker().is_chief,
    )
    training, validation = _batches(job, splits, state, spread)
    run = functools.partial(loop.run, learner, course, training, validation, checkpoints, state)
    if not course.is_chief:
        return run([])
    progress = callbacks.Progress(settings.epochs, course.steps, resumed_from=state.epoch or None)
    frames = input_pipeline.sample(job.eval_files, job.input_size, splits.validation.examples, EXAMPLE_FRAMES)
    with contextlib.closing(callbacks.TensorBoardLog(job.log_dir, job.class_map, frames, state.history)) as log:
        return run([log, progress])


def _batches(
    job: TrainingJob, splits: Splits, state: State, spread: tf.distribute.Strategy
) -> tuple[Iterable[Any], Iterable[Any]]:
    """Returns the batches of all that is left to train on, and of one validation."""
    settings = job.training
    augment = augmentation.build(settings, job.input_size)

    def training(share: Share) -> tf.data.Dataset:
        return input_pipeline.training_batches(
            job.train_files,
            job.input_size,
            settings.batch_size,
            splits.train.examples,
            range(state.epoch, settings.epochs),
            state.seed,
            augment,
            dataclasses.replace(share, least=registry.min_batch(job.model)),
            skip=state.step,
        )

    def validation(share: Share) -> tf.data.Dataset:
        examples = splits.validation.examples
        return input_pipeline.evaluation_batches(job.eval_files, job.input_size, settings.batch_size, examples, share)

    return strategy.distribute(spread, training), strategy.distribute(spread, validation)


def _training_steps(job: TrainingJob, facts: SplitFacts, spread: tf.distribute.Strategy) -> int:
    """Returns the steps of an epoch."""
    least = registry.min_batch(job.model)
    steps = _steps("train", facts, job.training.batch_size, Share(devices=spread.num_replicas_in_sync, least=least))
    if not steps:
        raise UsageError(
            f"split train: found {facts.examples} example, expected at least {least}, as {job.model.name} cannot learn "
            "from a step of fewer; add some, or choose another model"
        )
    return steps


def _steps(split: str, facts: SplitFacts, batch_size: int, share: Share) -> int:
    if facts.examples < share.replicas:
        raise UsageError(
            f"split {split}: found {facts.examples} examples, expected at least one for each of {share.replicas} "
            "devices; train on fewer"
        )
    return share.steps(facts.examples, batch_size)


def _on_one_device(learner: Learner) -> keras.Model:
    """Returns the network with one copy of its weights, on no particular device."""
    if learner.strategy.num_replicas_in_sync == 1:
        return learner.model
    model = keras.models.clone_model(learner.model)
    model.set_weights(learner.model.get_weights())
    return model
