"""Training steps of every architecture on a GPU, compiled by XLA or not, in both 16-bit types."""

import itertools
import math

import instance_toy
import keras
import numpy as np
import pytest
import tensorflow as tf
import training_toy as toy

from components import features
from trainer import distribution, input_pipeline, losses, precision
from trainer.config import ModelSettings, TrainingSettings
from trainer.models import registry
from trainer.training import TrainingJob, load_split, make_learner

# Divisible by the stride of every network.
SIZE = (64, 64)
STEPS = 3
BFLOAT16, FLOAT16, FLOAT32 = "mixed_bfloat16", "mixed_float16", "float32"

SMALL = {"unet": {"base_filters": 8}, "mask_rcnn": {"encoder": "vgg16", "pyramid_filters": 32, "proposals": 50}}
NETWORKS = {name: {"name": name, **SMALL.get(name, {})} for name in registry.ARCHITECTURES}
NETWORKS["unet with depth"] = {"name": "unet", **SMALL["unet"], "depth": True}
BILINEAR, SUPERVISED = "fcn8 with options", "unet on vgg16"
NETWORKS[BILINEAR] = {"name": "fcn8", "upsampling": "bilinear", "head_filters": 16, "normalization": True}
NETWORKS[SUPERVISED] = {"name": "unet", "encoder": "vgg16", "base_filters": 8}
RECIPES = {
    BILINEAR: {"lovasz_weight": 0.5, "dice_weight": 0.5, "focal_weight": 0.5},
    SUPERVISED: {"deep_supervision": 0.4},
    "mask_rcnn": {"proposals": 32},
}

# XLA takes long to compile, so float16 is compiled only for networks that resize features.
CASES = [(name, BFLOAT16, "on") for name in NETWORKS if name != "mask_rcnn"]
CASES += [(name, FLOAT16, "off") for name in NETWORKS]
# XLA on a CPU, which checks these tests, cannot multiply matrices of bfloat16.
CASES += [("mask_rcnn", BFLOAT16, "off"), ("mask_rcnn", FLOAT32, "on")]
CASES += [(name, FLOAT16, "on") for name in (BILINEAR, "pspnet")]
CASES += [(name, BFLOAT16, "off") for name in (BILINEAR, "pspnet")]


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> str:
    rng = np.random.default_rng(0)
    examples = [
        {
            features.TRANSFORMED_IMAGE: toy.png(rng.integers(0, 256, (*SIZE, 3), np.uint8)),
            features.TRANSFORMED_MASK: toy.png(rng.integers(0, 4, SIZE, np.uint8)),
            features.TRANSFORMED_DEPTH: toy.png(rng.integers(0, 2**16, SIZE, np.uint16)),
            features.TRANSFORMED_INSTANCES: instance_toy.stack(instance_toy.example(rng)[1][:, :, : SIZE[1]]),
        }
        for _ in range(5)
    ]
    return toy.write_examples(tmp_path_factory.mktemp("records") / "train.gz", examples)


def make(records, network, policy, xla, recipe):
    """Returns a learner with repeatable weights, and the batches of its first steps."""
    job = TrainingJob(
        ModelSettings(**network),
        TrainingSettings(batch_size=2, precision=policy, xla=xla, **recipe),
        toy.CLASS_MAP,
        SIZE,
        [records],
        [records],
        seed=1,
        log_dir="",
        things=instance_toy.THINGS,
    )
    alone = tf.distribute.get_strategy()
    split = load_split(job, "train", job.train_files, alone)
    steps = input_pipeline.steps(split.facts.largest_shard, job.training.batch_size)
    batches = job.task.decode(
        input_pipeline.training_batches(split.pixels, job.training.batch_size, steps, range(1), seed=1)
    )
    keras.utils.set_random_seed(1)
    with precision.policy(policy):
        return make_learner(job, split.facts, alone), itertools.islice(distribution.distribute(alone, batches), STEPS)


def step_losses(records, network, policy, xla, **recipe):
    learner, batches = make(records, network, policy, xla, recipe)
    found = []
    for batch in batches:
        learner.reset_scores()
        learner.train(batch)
        found.append(learner.scores()["loss"])
    return found


@pytest.mark.parametrize(("name", "policy", "xla"), CASES)
def test_a_network_trains(records, device, caplog, name, policy, xla):
    learner, batches = make(records, NETWORKS[name], policy, xla, RECIPES.get(name, {}))
    before = learner.model.get_weights()

    for batch in batches:
        learner.train(batch)

    assert math.isfinite(learner.scores()["loss"])
    after = learner.model.get_weights()
    assert all(np.isfinite(weights).all() for weights in after)
    # In float16, loss scaling skips steps whose gradients overflow; with so few steps, it may skip all of them.
    assert policy == FLOAT16 or any((old != new).any() for old, new in zip(before, after, strict=True))
    assert device in learner.model.trainable_variables[0].value.device
    assert "XLA cannot compile" not in caplog.text


def test_a_validation_step_compiles_too(records, caplog):
    learner, batches = make(records, NETWORKS[BILINEAR], BFLOAT16, "on", RECIPES[BILINEAR])
    images, masks, _ = next(iter(batches))

    learner.validate((images, tf.cast(masks, tf.int32)))

    assert math.isfinite(learner.scores()["loss"])
    assert "XLA cannot compile" not in caplog.text


def test_steps_with_and_without_xla_agree(records):
    exact = tf.config.experimental.tensor_float_32_execution_enabled()
    # TensorFloat-32's mantissa of 10 bits would hide a difference.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        compiled, plain = (step_losses(records, NETWORKS["fcn8"], FLOAT32, xla, augment=False) for xla in ("on", "off"))
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(exact)

    assert compiled == pytest.approx(plain, rel=2e-3)


def test_a_loss_that_xla_cannot_compile_trains_without_xla(records, monkeypatch, caplog):
    build = losses.build

    def with_python(*arguments):
        objective = build(*arguments)

        def total(masks, logits):
            nothing = tf.numpy_function(lambda: np.float32(0), [], tf.float32)
            return objective(masks, logits) + tf.ensure_shape(nothing, [])

        return total

    plain = step_losses(records, NETWORKS["unet"], FLOAT32, "off", augment=False)
    monkeypatch.setattr(losses, "build", with_python)

    found = step_losses(records, NETWORKS["unet"], FLOAT32, "on", augment=False)

    assert "XLA cannot compile the training step" in caplog.text
    assert found == pytest.approx(plain, rel=2e-2)
