"""Depth estimation with segmentation: data, augmentation, loss, network, and a training on drawn boxes."""

import dataclasses
import json
import pathlib
import re
import types

import numpy as np
import pytest
import run_fn_toy
import tensorflow as tf
import training_toy as toy
import yaml
from typer.testing import CliRunner

from components import features
from components.errors import UsageError
from pipeline.cli.main import app
from serving.local import LocalModel
from serving.pictures import write_pictures
from serving.predictor import Predictor
from trainer import augmentation
from trainer.checkpoints import Checkpoints
from trainer.config import ModelSettings, TrainingSettings
from trainer.losses.depth import SCALE_INVARIANCE, ScaleInvariantError
from trainer.models import registry
from trainer.padding import PADDING
from trainer.run_fn import run_fn
from trainer.training import TrainingJob, train

SCALE = 100.0
ENDINGS = {"images": "", "masks": "_mask", "depth": "_depth"}  # of the files of a data folder
UNET = ModelSettings(name="unet", base_filters=4, dropout=0.0, depth=True)


def metres(mask: np.ndarray) -> np.ndarray:
    """Returns the distance of each pixel of the toy's masks: ground, box and stripe; it is unknown in the border."""
    return np.array([40, 8, 15, 0])[mask]


def job(directory: pathlib.Path, model: ModelSettings = UNET, **training: object) -> TrainingJob:
    """Writes pairs with depth as Transform does, and returns a job on them."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 8), ("eval", 2)):
        examples = (
            {
                features.TRANSFORMED_IMAGE: toy.png(image),
                features.TRANSFORMED_MASK: toy.png(mask),
                features.TRANSFORMED_DEPTH: toy.png((metres(mask) * SCALE).astype(np.uint16)),
            }
            for image, mask in (toy.pair(rng) for _ in range(number))
        )
        toy.write_examples(directory / f"{split}.gz", examples)
    made = toy.job(directory, directory / "logs", model=model, **training)
    return dataclasses.replace(made, depth_scale=SCALE)


def evaluate(model: str, folder: pathlib.Path, image: np.ndarray, mask: np.ndarray) -> dict:
    """Returns what `segpipe evaluate` prints about a model on one image with mask and depth map."""
    (folder / "val").mkdir(parents=True)
    (folder / "segpipe.yaml").write_text(
        yaml.safe_dump(
            {
                "classes": [
                    {"name": name, "color": list(color)}
                    for name, color in zip(toy.CLASS_MAP.names, toy.CLASS_MAP.colors, strict=True)
                ],
                "ignore": "void",
                "splits": {"val": "val"},
                "depth_scale": 2 * SCALE,
                "layout": {kind: f"{{split}}/{{name}}{end}.png" for kind, end in ENDINGS.items()},
            }
        )
    )
    for end, array in zip(ENDINGS.values(), (image, mask, (metres(mask) * 2 * SCALE).astype(np.uint16)), strict=True):
        (folder / "val" / f"one{end}.png").write_bytes(toy.png(array))
    command = [
        "evaluate",
        "--model",
        model,
        "--data",
        str(folder),
        "--description",
        str(folder / "segpipe.yaml"),
        "--json",
    ]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    return json.loads(result.stdout[result.stdout.index("{") :])


def test_a_split_holds_classes_and_depth(tmp_path):
    split = toy.split(job(tmp_path))

    assert (split.pixels.masks.dtype, split.pixels.masks.shape) == (np.uint16, (8, *toy.SIZE, 2))
    masks, depth = np.moveaxis(split.pixels.masks, -1, 0)
    np.testing.assert_array_equal(depth, metres(masks) * SCALE)
    assert split.facts.class_pixels.sum() == masks.size


def test_it_learns_classes_and_depth(tmp_path):
    made = job(tmp_path, epochs=60, validate_every=60, batch_size=2, augment=False, deep_supervision=0.4)

    trained = train(made, Checkpoints(str(tmp_path / "checkpoints")))

    split = toy.split(made, "eval").pixels
    logits, log_depth = trained.model(split.images)
    masks = split.masks[..., 0]
    known = masks < 3
    truth = np.log(metres(masks)[known])
    error = np.square(truth - log_depth.numpy()[..., 0][known]).mean()
    assert trained.history[-1]["val_mean_iou"] > 0.5
    # A constant depth has an error of at least the variance.
    assert error < 0.5 * truth.var()
    assert logits.shape == (*masks.shape, toy.CLASS_MAP.num_classes)


def test_run_fn_exports_a_model_that_estimates_depth_at_each_images_own_size(tmp_path):
    arguments = run_fn_toy.arguments(tmp_path, run_fn_toy.write_transform(tmp_path / "transform"))
    made = job(tmp_path)
    arguments |= {"train_files": made.train_files, "eval_files": made.eval_files}
    training = {"epochs": 1, "batch_size": 4, "precision": "mixed_bfloat16", "crop_size": [16, 32]}
    arguments["custom_config"] |= {
        "model": {**UNET.model_dump(), "test_time_flip": True},
        "training": training,
        "depth_scale": SCALE,
    }

    run_fn(types.SimpleNamespace(**arguments))

    loaded = tf.saved_model.load(arguments["serving_model_dir"])
    (text,) = loaded.signatures["describe"](unused=tf.constant([""]))["json"].numpy()
    assert json.loads(text)["depth_scale"] == SCALE
    image, mask = toy.pair(np.random.default_rng(5))
    images = [image] * 8 + [image[:20, :40]]
    encoded = tf.constant([toy.png(each) for each in images])
    served, evaluated = (loaded.signatures[name](image=encoded) for name in ("serving_default", "evaluation"))
    assert set(evaluated) == {"mask_png_bytes", "confidence_png_bytes", "depth_png_bytes"}
    for found in (served, evaluated):
        depths = [tf.io.decode_png(png, dtype=tf.uint16).numpy() for png in found["depth_png_bytes"].numpy()]
        assert [each.shape for each in depths] == [(*each.shape[:2], 1) for each in images]
        # An untrained network estimates about 10 metres.
        assert all(0.5 * SCALE < each.min() <= each.max() < 100 * SCALE for each in depths)
    (tmp_path / "image.png").write_bytes(encoded[8].numpy())
    (outcome,) = write_pictures(
        LocalModel(Predictor(arguments["serving_model_dir"])), [tmp_path / "image.png"], str(tmp_path)
    )
    assert not outcome.refused
    assert (tmp_path / "image_depth.png").read_bytes() == served["depth_png_bytes"][8].numpy()
    known, truth = mask < 3, metres(mask)
    estimate = tf.io.decode_png(evaluated["depth_png_bytes"][0], dtype=tf.uint16).numpy()[..., 0] / SCALE
    expected = (abs(estimate - truth)[known] / truth[known]).mean()
    assert evaluate(arguments["serving_model_dir"], tmp_path / "data", image, mask)["abs_rel"] == pytest.approx(
        expected
    )
    probabilities = loaded.signatures["probabilities"](image=encoded)["probabilities"]
    assert probabilities.shape == (9, *toy.SIZE, toy.CLASS_MAP.num_classes)
    np.testing.assert_allclose(tf.reduce_sum(probabilities, axis=-1), 1, rtol=1e-5)


def test_the_loss_is_the_scale_invariant_error_of_known_pixels():
    rng = np.random.default_rng(1)
    depth = rng.integers(1, 60000, (3, 4, 5)).astype(np.float32)
    log_depth = rng.normal(2, 1, (3, 4, 5, 1)).astype(np.float32)
    depth[0, :2] = 0  # unknown
    depth[2] = PADDING

    errors = []
    for truth, estimate in zip(depth[:2], log_depth[:2, ..., 0], strict=True):
        d = (estimate - np.log(np.maximum(truth, 1) / SCALE))[truth > 0]
        errors.append((d**2).mean() - SCALE_INVARIANCE * d.mean() ** 2)
    loss = ScaleInvariantError(SCALE)
    np.testing.assert_allclose(loss(tf.constant(depth), tf.constant(log_depth)), np.mean(errors), rtol=1e-5)
    # Unknown depth has no gradient.
    with tf.GradientTape() as tape:
        estimate = tf.Variable(log_depth)
        value = loss(tf.zeros((3, 4, 5)), estimate)
    assert value == 0
    assert not np.any(tape.gradient(value, estimate))


def test_enlarging_an_image_divides_its_depth_by_the_scale():
    columns = np.arange(1, 33, dtype=np.uint16) * 100
    depth = np.broadcast_to(columns, (4, 32, 32))
    masks = np.stack([np.broadcast_to(np.arange(32, dtype=np.uint16), (4, 32, 32)), depth], axis=-1)
    images = np.repeat(masks[..., :1], 3, axis=-1).astype(np.float32)

    for scale in (1.0, 2.0):
        varied, both = augmentation.scale_and_crop(
            tf.constant(images), tf.constant(masks), tf.constant([1, 2], tf.int64), (32, 32), scale, scale, depth=True
        )
        labels, values = np.moveaxis(both.numpy(), -1, 0)
        # A pixel's class is its source column, whose depth is divided by the scale.
        np.testing.assert_array_equal(values, (labels + 1) * 100 / scale)
        assert varied.shape == images.shape


ARCHITECTURES = {
    "fcn8": ModelSettings(name="fcn8", depth=True),
    "unet": ModelSettings(name="unet", base_filters=4, normalization=True, depth=True),
    "unet-resnet50": ModelSettings(name="unet", encoder="resnet50", base_filters=4, depth=True),
    "unet-convnext": ModelSettings(name="unet", encoder="convnext_tiny", base_filters=4, depth=True),
}


@pytest.mark.parametrize("settings", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_the_decoders_share_only_the_encoder(settings):
    plain = registry.build(settings.model_copy(update={"depth": False}), None, 4)
    model = registry.build(settings, None, 4)

    logits, log_depth = model(np.zeros((2, 64, 96, 3), np.uint8))
    assert (logits.shape, log_depth.shape) == ((2, 64, 96, 4), (2, 64, 96, 1))
    kinds = {layer.name: layer for layer in model.layers if layer.weights}
    own = {name for name in kinds if name.startswith("depth_")}
    assert {layer.name for layer in plain.layers if layer.weights} == set(kinds) - own - {"log_depth"}
    # Only the decoder is duplicated.
    copied = {name.removeprefix("depth_") for name in own}
    assert copied
    assert copied < set(kinds)
    assert not any(re.match("block|conv1_|conv[2-5]_|stage|encoder|bottleneck", name) for name in copied)
    assert all(kinds[f"depth_{name}"].weights[0] is not kinds[name].weights[0] for name in copied)


def test_an_architecture_that_does_not_support_depth_is_refused():
    settings = ModelSettings(name="segnet", depth=True)

    with pytest.raises(UsageError, match=r"model.depth: found True, but segnet does not support it; leave it at false"):
        registry.check(settings, (64, 96), TrainingSettings())
