"""The training itself: builds a network, fits it on Transform's records and keeps the best epoch.

It reads top to bottom in `train`; `trainer.run_fn` connects it with TFX.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Sequence
from typing import Any

import keras

from components.class_map import ClassMap
from trainer import augmentation, callbacks, input_pipeline, losses, metrics, precision, schedule, strategy
from trainer.checkpoints import Checkpoints, State
from trainer.config import ModelSettings, TrainingSettings
from trainer.models import registry

LOG = logging.getLogger(__name__)

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
    """

    model: ModelSettings
    training: TrainingSettings
    class_map: ClassMap
    input_size: tuple[int, int]
    train_files: Sequence[str]
    eval_files: Sequence[str]
    seed: int | None
    log_dir: str


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


def train(job: TrainingJob, checkpoints: Checkpoints) -> TrainedModel:
    """Trains a network, from its newest checkpoint if there is one.

    The checkpoints stay; the caller removes them once the result is safe.

    Raises:
        UsageError: for settings that do not fit each other or the data.
        DataRejectedError: when a split is empty or its masks do not fit the class map.
        SegpipeError: when the loss is no number any more.
    """
    settings = job.training
    for size in (job.input_size, settings.crop_size or job.input_size):
        registry.check_input_size(job.model.name, size, job.model.encoder)
    state = checkpoints.read() or State(seed=random.SystemRandom().getrandbits(31) if job.seed is None else job.seed)
    train_split = input_pipeline.count(job.train_files, job.class_map.num_classes, "train")
    eval_split = input_pipeline.count(job.eval_files, job.class_map.num_classes, "eval")
    steps = -(-train_split.examples // settings.batch_size)
    policy = precision.detect(settings.precision)
    # Keras draws initial weights and dropout from the global generators.
    keras.utils.set_random_seed(state.seed)
    with precision.policy(policy), strategy.choose().scope():
        # Of no fixed size: it trains on windows and is validated and exported for whole images.
        model = registry.build(job.model, None, job.class_map.num_classes)
        registry.freeze(model, job.model, settings.frozen_blocks)
        compile_model(model, job, train_split, steps)
        checkpoints.restore(model, state)
    if state.epoch < settings.epochs:
        state = _fit(model, job, checkpoints, state, train_split, eval_split)
    epoch = state.epoch
    if settings.keep == "best":
        checkpoints.load_best(model, state)
        epoch = state.best_epoch
    # A model around the same layers, so that the export does not carry the optimizer's state.
    bare = keras.Model(model.input, model.output, name=model.name)
    return TrainedModel(bare, state.history, epoch, policy, state.seed)


def compile_model(
    model: keras.Model, job: TrainingJob, train_split: input_pipeline.SplitFacts, steps_per_epoch: int
) -> None:
    """Gives a model its optimizer, loss and metric."""
    optimizer = keras.optimizers.AdamW(
        schedule.learning_rate(job.training, steps_per_epoch), weight_decay=job.training.weight_decay
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    weights = losses.class_weights(train_split, job.class_map, job.training.class_balance)
    model.compile(
        optimizer=optimizer,
        loss=losses.WeightedCrossEntropy(weights),
        metrics=[metrics.MeanIoU(job.class_map)],
        jit_compile=precision.use_xla(),
    )
    # Built here, the optimizer has slots for a checkpoint; built by the first step, it makes
    # TensorFlow trace that step twice.
    model.optimizer.build(model.trainable_variables)


def _fit(
    model: keras.Model,
    job: TrainingJob,
    checkpoints: Checkpoints,
    state: State,
    train_split: input_pipeline.SplitFacts,
    eval_split: input_pipeline.SplitFacts,
) -> State:
    settings = job.training
    batches = input_pipeline.training_batches(
        job.train_files,
        job.input_size,
        settings.batch_size,
        train_split.examples,
        range(state.epoch, settings.epochs),
        state.seed,
        augmentation.build(settings, job.input_size),
    )
    validation = input_pipeline.evaluation_batches(
        job.eval_files, job.input_size, settings.batch_size, eval_split.examples
    )
    steps = -(-train_split.examples // settings.batch_size)
    recorder = callbacks.EpochRecorder(checkpoints, state)
    frames = input_pipeline.sample(job.eval_files, job.input_size, eval_split.examples, EXAMPLE_FRAMES)
    model.fit(
        batches,
        validation_data=validation,
        validation_freq=validated_epochs(settings),
        epochs=settings.epochs,
        initial_epoch=state.epoch,
        steps_per_epoch=steps,
        callbacks=[
            callbacks.FiniteLoss(),
            recorder,
            callbacks.TensorBoardLog(job.log_dir, job.class_map, frames, recorder),
            callbacks.Progress(settings.epochs, steps, resumed_from=state.epoch or None),
        ],
        verbose=0,
    )
    return recorder.state


def validated_epochs(settings: TrainingSettings) -> list[int]:
    """Returns the 1-based epochs that end with a validation: every so many, and the last."""
    return sorted({*range(settings.validate_every, settings.epochs + 1, settings.validate_every), settings.epochs})
