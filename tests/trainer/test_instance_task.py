"""The parts of instance segmentation outside the network, and a whole training on drawn rectangles."""

import json
import logging
import pathlib
import types

import instance_toy as toy
import numpy as np
import pytest
import run_fn_toy
import tensorflow as tf
import training_toy

from components.class_map import ClassMap
from components.errors import DataRejectedError, UsageError
from trainer import instance_split
from trainer.average_precision import MaskAP50, mask_iou
from trainer.checkpoints import Checkpoints
from trainer.config import ModelSettings, TrainingSettings
from trainer.models import encoders, registry
from trainer.models.mask_rcnn.truth import PADDING, read
from trainer.run_fn import run_fn
from trainer.training import train


@pytest.fixture(autouse=True)
def _small_encoder(monkeypatch):
    monkeypatch.setitem(encoders.ENCODERS, "vgg16", toy.ENCODER)


def test_the_network_finds_its_training_instances(tmp_path):
    job = toy.job(tmp_path, epochs=40, validate_every=40, augment=False)

    trained = train(job, Checkpoints(str(tmp_path / "checkpoints")))

    last = trained.history[-1]
    assert trained.score == "mask_ap50"
    assert last["val_mask_ap50"] > 0.5
    # Training computes no score, because that would need a detection at each step.
    assert last["mask_ap50"] is None
    assert last["loss"] < trained.history[0]["loss"] / 2


def test_run_fn_exports_a_model_that_finds_instances_at_each_images_own_size(tmp_path):
    job = toy.job(tmp_path)
    arguments = run_fn_toy.arguments(tmp_path, run_fn_toy.write_transform(tmp_path / "transform", toy.SIZE))
    arguments |= {"train_files": job.train_files, "eval_files": job.eval_files}
    # Half precision, because the export is float32 anyway; a minimum score of 0, because the network learns nothing.
    model = {**toy.MODEL.model_dump(), "min_score": 0.0}
    training = {"epochs": 1, "batch_size": 2, "proposals": 16, "precision": "mixed_bfloat16", "crop_size": None}
    arguments["custom_config"] |= {
        "model": model,
        "training": training,
        "input_size": list(toy.SIZE),
        "things": list(toy.THINGS),
    }

    run_fn(types.SimpleNamespace(**arguments))

    history = json.loads((pathlib.Path(arguments["model_run_dir"]) / "history.json").read_text())
    assert np.isfinite([history[0]["loss"], history[0]["val_loss"]]).all()
    loaded = tf.saved_model.load(arguments["serving_model_dir"])
    (text,) = loaded.signatures["describe"](unused=tf.constant([""]))["json"].numpy()
    described = json.loads(text)
    assert (described["task"], described["things"]) == ("instance", ["box", "stripe"])
    assert described["val_mask_ap50"] == history[0]["val_mask_ap50"]
    image, _ = toy.example(np.random.default_rng(5))
    images = [image] * 8 + [image[:32, :48]]
    encoded = tf.constant([training_toy.png(each) for each in images])
    found = loaded.signatures["evaluation"](image=encoded)
    assert {name: (each.shape, each.dtype) for name, each in found.items()} == {
        "boxes": ((9, 10, 4), tf.float32),
        "classes": ((9, 10), tf.int64),
        "scores": ((9, 10), tf.float32),
        "instance_png_bytes": ((9, 10), tf.string),
    }
    scores, classes = found["scores"].numpy(), found["classes"].numpy()
    assert (np.diff(scores) <= 0).all()
    assert set(classes[scores > 0]) <= set(toy.THINGS)
    assert (scores[:, 0] > 0).all()
    assert ((classes == -1) == (scores == 0)).all()
    for index, each in enumerate(images):
        top, left, bottom, right = found["boxes"][index, 0].numpy()
        assert 0 <= top < bottom <= each.shape[0]
        assert 0 <= left < right <= each.shape[1]
        mask = tf.io.decode_png(found["instance_png_bytes"][index, 0]).numpy()
        assert mask.shape == (*each.shape[:2], 1)
        assert set(np.unique(mask)) <= {0, 255}
        empty = [png == b"" for png in found["instance_png_bytes"][index].numpy()]
        assert empty == (scores[index] == 0).tolist()
    default = loaded.signatures["serving_default"](image=encoded[:1])
    np.testing.assert_allclose(default["boxes"], found["boxes"][:1], atol=1e-3)


def test_a_stack_gives_the_largest_masks_and_their_boxes():
    areas = np.random.default_rng(0).permutation(np.arange(1, 61))
    labels = np.zeros((60, *toy.SIZE), np.uint8)
    for index, area in enumerate(areas):
        labels[index, 3, 5 : 5 + area] = 1 + index % 2

    masks = instance_split.decode(toy.stack(labels), toy.SIZE)
    truth = read(tf.stack([masks, instance_split.decode(b"", toy.SIZE), instance_split.decode(b"padding", toy.SIZE)]))

    kept = np.argsort(-areas)[:50]
    assert np.count_nonzero(masks, axis=(0, 1)).tolist() == list(range(60, 10, -1))
    np.testing.assert_array_equal(truth.labels[0], 1 + kept % 2)
    np.testing.assert_array_equal(truth.boxes[0, :, :2], [[3, 5]] * 50)
    np.testing.assert_array_equal(truth.boxes[0, :, 2:], [[4, 5 + area] for area in areas[kept]])
    assert truth.images.numpy().tolist() == [1, 1, 0]
    assert not np.any(truth.labels[1:])
    assert not np.any(truth.boxes[1:])
    assert set(np.unique(instance_split.decode(b"padding", toy.SIZE))) == {PADDING}


def test_instances_beyond_the_maximum_are_counted_and_logged(tmp_path, caplog):
    image, labels = toy.example(np.random.default_rng(0))
    many = np.repeat(labels, 30, axis=0)
    files = [toy.write_records(tmp_path / "a.gz", [(image, many), (image, labels), (image, labels[:0])])]

    split = instance_split.load(files, toy.SIZE, 1.0)
    with caplog.at_level(logging.WARNING):
        facts = instance_split.facts([split.counts()], "train", files)

    assert (facts.examples, split.label_counts()) == (3, [62, 10])
    assert "left out 10 of 62 instances" in caplog.text


def test_a_split_without_an_instance_is_rejected(tmp_path):
    image, labels = toy.example(np.random.default_rng(0))
    files = [toy.write_records(tmp_path / "a.gz", [(image, labels[:0])])]

    with pytest.raises(DataRejectedError, match="split eval: no instance in 1 images"):
        instance_split.facts([instance_split.load(files, toy.SIZE, 1.0).counts()], "eval", files)


def test_pictures_draw_the_smaller_instance_in_front(tmp_path):
    job = toy.job(tmp_path)
    labels = np.zeros((2, *toy.SIZE), np.uint8)
    labels[0, 10:20, 10:20], labels[1, :30, :30] = 1, 2

    (drawn,) = job.task.class_maps(np.array([toy.stack(labels)], object))

    assert (drawn[15, 15], drawn[5, 5], drawn[40, 40]) == (1, 2, 255)
    assert (ClassMap.colorize(job.class_map, drawn)[40, 40] == 255).all()


def _score(overlap, labels, classes, scores) -> float:
    metric = MaskAP50(2)
    for part in zip(overlap, labels, classes, scores, strict=True):
        metric.update_state(*(tf.constant(each)[tf.newaxis] for each in part))
    return float(metric.result())


def test_average_precision_is_the_area_under_precision_and_recall():
    # One class, 4 true instances in two images. By score: hit, miss, hit, miss (a duplicate), hit.
    overlap = [[[0.9, 0.0], [0.4, 0.45], [0.0, 0.6]], [[0.5, 0.0], [0.8, 0.0], [0.0, 0.0]]]
    labels, classes = [[1, 1], [1, 1]], [[0, 0, 0], [0, 0, -1]]
    scores = [[0.95, 0.85, 0.75], [0.5, 0.4, 0.0]]

    # Recall 1/4 at precision 1, 2/4 at 2/3, 3/4 at 3/4 without the duplicate: the envelope is 1, 3/4, 3/4.
    assert _score(overlap, labels, classes, scores) == pytest.approx((1 + 3 / 4 + 3 / 4) / 4, abs=1e-6)


def test_average_precision_is_the_mean_of_the_classes_in_the_truth():
    overlap = [[[1.0, 0.0], [0.0, 1.0]]]

    assert _score(overlap, [[1, 2]], [[0, 1]], [[0.9, 0.8]]) == 1
    # The second one is of the wrong class.
    assert _score(overlap, [[1, 2]], [[0, 0]], [[0.9, 0.8]]) == 0.5
    assert _score(overlap, [[1, 1]], [[0, 0]], [[0.9, 0.8]]) == 1
    assert np.isnan(_score(overlap, [[0, 0]], [[0, 1]], [[0.9, 0.8]]))


def test_overlap_of_masks():
    found, true = np.zeros((1, 2, 4, 4), bool), np.zeros((1, 1, 4, 4), np.uint8)
    found[0, 0, :2], true[0, 0, 1:] = True, 1

    assert mask_iou(found, true).numpy().ravel().tolist() == [0.25, 0]


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ({"test_time_flip": True}, {}, "model.test_time_flip: found True, but mask_rcnn does not support it"),
        ({}, {"crop_size": (64, 64)}, "training.crop_size: found .*; leave it at null"),
        ({"base_filters": 8}, {}, "model.base_filters: found 8"),
    ],
)
def test_settings_of_semantic_segmentation_are_refused(model, training, message):
    with pytest.raises(UsageError, match=message):
        registry.check(ModelSettings(name="mask_rcnn", **model), (64, 96), TrainingSettings(**training))


def test_other_networks_have_no_proposals():
    with pytest.raises(UsageError, match="model.proposals: found 5, but fcn8 does not support it"):
        registry.check_options(ModelSettings(proposals=5))
