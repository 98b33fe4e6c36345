"""Training from the weights of an earlier training."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_toy as toy

from components import artifact_files
from components.errors import SegpipeError
from trainer import warm_start
from trainer.checkpoints import Checkpoints
from trainer.config import ModelSettings
from trainer.models import registry
from trainer.training import make_learner, train


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """An earlier training: the folder of its data, its network and the folder of its export."""
    root = tmp_path_factory.mktemp("earlier")
    toy.write_splits(root)
    keras.utils.set_random_seed(1)
    model = registry.build(toy.job(root, root).model, None, toy.CLASS_MAP.num_classes)
    export = str(root / "model" / "Format-Serving")
    warm_start.save(model, export)
    return root, model, export


def test_a_warm_start_begins_with_the_weights_of_the_base_model(earlier, tmp_path):
    root, model, export = earlier
    # The rate is so small that one epoch does not change the weights.
    job = toy.job(root, tmp_path / "logs", seed=99, epochs=1, learning_rate=1e-12, weight_decay=0)

    trained = train(dataclasses.replace(job, base_model=export), Checkpoints(str(tmp_path / "checkpoint")))

    for before, after in zip(model.trainable_weights, trained.model.trainable_weights, strict=True):
        np.testing.assert_allclose(after.numpy(), before.numpy(), atol=1e-6)


def test_a_resumed_training_needs_neither_the_base_model_nor_pretrained_weights(earlier, tmp_path):
    root, _, _ = earlier
    network = ModelSettings(name="pspnet", encoder="mobilenet_v2")
    folder = str(tmp_path / "checkpoint")
    first = train(toy.job(root, tmp_path / "logs", epochs=1, model=network), Checkpoints(folder))

    gone = network.model_copy(update={"encoder_weights": str(tmp_path / "gone.weights.h5")})
    job = toy.job(root, tmp_path / "logs", epochs=1, model=gone)
    again = train(dataclasses.replace(job, base_model=str(tmp_path / "gone")), Checkpoints(folder))

    for before, after in zip(toy.weights(first), toy.weights(again), strict=True):
        np.testing.assert_array_equal(after, before)


def test_a_warm_start_needs_no_pretrained_weights(earlier, tmp_path):
    root, _, _ = earlier
    network = ModelSettings(name="pspnet", encoder="mobilenet_v2")
    model, export = registry.build(network, None, toy.CLASS_MAP.num_classes), str(tmp_path / "Format-Serving")
    warm_start.save(model, export)
    gone = network.model_copy(update={"encoder_weights": str(tmp_path / "gone.weights.h5")})
    job = dataclasses.replace(toy.job(root, tmp_path / "logs", model=gone), base_model=export)

    learner = make_learner(job, toy.split(job).facts, tf.distribute.get_strategy())

    for before, after in zip(model.get_weights(), learner.model.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)


def test_weights_that_lack_a_layer_are_refused(earlier, tmp_path):
    _, model, _ = earlier
    part = keras.Model(model.input, model.get_layer("encoder1_relu2").output)
    path = artifact_files.weights_beside(str(tmp_path / "Format-Serving"))
    part.save_weights(path)

    with pytest.raises(SegpipeError, match="training.warm_start.*does not hold the weights of this network"):
        warm_start.load(model, str(tmp_path / "Format-Serving"))


def test_the_weights_are_not_part_of_the_pushed_model(earlier):
    _, _, export = earlier

    assert (pathlib.Path(export).parent / "network.weights.h5").exists()
    assert not pathlib.Path(export).exists()


def test_missing_weights_or_those_of_another_network_are_errors(earlier, tmp_path):
    root, _, export = earlier
    job = toy.job(root, tmp_path / "logs")
    other = dataclasses.replace(job, model=job.model.model_copy(update={"base_filters": 8}), base_model=export)

    with pytest.raises(SegpipeError, match="training.warm_start.*does not hold the weights of this network"):
        train(other, Checkpoints(str(tmp_path / "other")))
    with pytest.raises(SegpipeError, match="training.warm_start"):
        train(dataclasses.replace(job, base_model=str(tmp_path / "absent")), Checkpoints(str(tmp_path / "absent")))
