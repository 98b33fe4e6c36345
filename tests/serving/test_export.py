"""The exported model: the outputs of its signatures, and the same pixels as in training."""

import functools
import io
import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_transform.tf_metadata import dataset_metadata

from components import features, preprocessing, schema
from components.artifact_files import write_model_metadata
from components.class_map import ClassMap
from components.dataset import synthetic
from components.errors import UsageError
from components.metrics.confusion import decode_confidence
from components.pusher.push import push
from serving.export import export
from serving.predictor import Predictor, find_version
from serving.test_time import TestTimeAugmentation
from serving.tiling import Tiling
from serving.warmup import WARMUP_FILE

_SIZE = (32, 48)
_CLASS_MAP = ClassMap(("sky", "road", "void"), ((0, 0, 255), (128, 64, 128), (0, 0, 0)), ignore_index=2)


def _encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _images(count=3):
    """Encoded street scenes of different sizes, including a JPEG."""
    sizes = [(60, 80), (48, 64), (90, 70)]
    pixels = [synthetic.render(7, 0, index, sizes[index % 3])[0] for index in range(count)]
    return [_encoded(image, "JPEG" if index == 1 else "PNG") for index, image in enumerate(pixels)]


def _run_transform(directory, temporary, normalize_exposure):
    """Runs Transform for real: (its output directory, the transformed features of `_images()`)."""
    raw = [
        {
            features.IMAGE: image,
            features.MASK: _encoded(np.zeros((8, 8), np.uint8)),
            **dict.fromkeys((features.NAME, features.SEQUENCE, features.SPLIT, features.CONTENT_HASH), b"x"),
            **dict.fromkeys((features.HEIGHT, features.WIDTH), 8),
            **{features.class_share(name): 0.0 for name in _CLASS_MAP.names},
        }
        for image in _images()
    ]
    metadata = dataset_metadata.DatasetMetadata(schema.raw_schema(_CLASS_MAP, 8192))
    function = functools.partial(
        preprocessing.preprocessing_fn,
        custom_config={"input_size": list(_SIZE), "normalize_exposure": normalize_exposure},
    )
    with tft_beam.Context(temp_dir=temporary):
        (outputs, _), transform_fn = (raw, metadata) | tft_beam.AnalyzeAndTransformDataset(function)
        _ = transform_fn | tft_beam.WriteTransformFn(directory)
    return directory, outputs


def _brightness_model():
    """A model that classifies dark pixels as road."""
    inputs = keras.Input((*_SIZE, 3))
    brightness = keras.ops.mean(inputs, axis=-1, keepdims=True)
    # An identity convolution, so that there is a weight to restore.
    brightness = keras.layers.Conv2D(1, 1, kernel_initializer="ones")(brightness)
    logits = keras.ops.concatenate([brightness, 255.0 - brightness, brightness * 0 - 1000.0], axis=-1)
    return keras.Model(inputs, logits)


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    return _run_transform(str(tmp_path_factory.mktemp("transform")), str(tmp_path_factory.mktemp("beam")), False)


@pytest.fixture(scope="module")
def exported(transformed, tmp_path_factory):
    """The model, exported with the real Transform graph."""
    directory = str(tmp_path_factory.mktemp("serving") / "fcn8" / "12")
    export(_brightness_model(), transformed[0], directory, _CLASS_MAP, _SIZE, {"model": "fcn8"}, max_pixels=10_000)
    return directory


@pytest.fixture(scope="module")
def predictor(exported):
    return Predictor(exported)


def _assert_serving_sees_what_training_saw(predictor, outputs):
    served = predictor._model.signatures["preprocess"](image=tf.constant(_images()))["pixels"].numpy()

    trained = [tf.io.decode_png(row[features.TRANSFORMED_IMAGE]).numpy() for row in outputs]
    np.testing.assert_array_equal(served, np.stack(trained))


def test_serving_and_training_use_identical_pixels(predictor, transformed):
    _assert_serving_sees_what_training_saw(predictor, transformed[1])


def test_serving_and_training_use_identical_pixels_with_normalised_exposure(predictor, transformed, tmp_path):
    graph, outputs = _run_transform(str(tmp_path / "transform"), str(tmp_path / "beam"), True)
    export(_brightness_model(), graph, str(tmp_path / "model"), _CLASS_MAP, _SIZE, {"model": "fcn8"})

    _assert_serving_sees_what_training_saw(Predictor(str(tmp_path / "model")), outputs)
    assert outputs[0][features.TRANSFORMED_IMAGE] != transformed[1][0][features.TRANSFORMED_IMAGE]


def test_masks_have_the_size_of_their_images(predictor):
    masks = [prediction.mask for prediction in predictor.predict(_images())]

    assert [mask.shape for mask in masks] == [(60, 80), (48, 64), (90, 70)]
    assert all(mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1} for mask in masks)


def test_a_model_on_an_object_store_predicts_the_same(predictor, exported, s3):
    push(exported, f"{s3}/fcn8")

    (prediction,), (expected,) = (each.predict(_images()[:1]) for each in (Predictor(f"{s3}/fcn8"), predictor))

    np.testing.assert_array_equal(prediction.mask, expected.mask)


@pytest.fixture(scope="module")
def tiled(transformed, tmp_path_factory):
    """The model with sliding windows of its input size, behind the same Transform graph."""
    directory = str(tmp_path_factory.mktemp("tiled") / "fcn8" / "1")
    export(
        _brightness_model(), transformed[0], directory, _CLASS_MAP, _SIZE, {"model": "fcn8"}, tiling=Tiling(_SIZE, 0.5)
    )
    return Predictor(directory)


def test_tiling_segments_an_image_at_its_own_size(tiled, predictor):
    """Single dark columns: lost when the image is squeezed, found by windows."""
    pixels = np.full((64, 480, 3), 255, np.uint8)
    pixels[:, 5::10] = 0

    (squeezed,), (sharp,) = predictor.predict([_encoded(pixels[:20])]), tiled.predict([_encoded(pixels)])

    np.testing.assert_array_equal(sharp.mask, pixels[..., 0] == 0)
    assert sharp.class_share == pytest.approx([0.9, 0.1, 0])
    assert (squeezed.mask != sharp.mask[:20]).mean() > 0.05


def test_evaluation_and_serving_use_the_same_windows(tiled):
    images = _images(11)
    served = tiled._model.signatures["serving_default"](image=tf.constant(images))
    evaluated = tiled._model.signatures["evaluation"](image=tf.constant(images))

    assert list(evaluated["mask_png_bytes"].numpy()) == list(served["mask_png_bytes"].numpy())
    means = [decode_confidence(data).mean() / 255 for data in evaluated["confidence_png_bytes"].numpy()]
    np.testing.assert_allclose(means, served["confidence"], atol=1 / 510 + 1e-5)
    assert served["class_map"].shape == (11, *_SIZE)
    assert tiled.metadata["tiling"] == {"window": [32, 48], "overlap": 0.5}
    assert set(tiled._model.signatures) == {"serving_default", "raw", "describe", "evaluation", "preprocess"}


def test_tiling_reports_the_unreadable_image(tiled):
    good, _, _ = _images()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image\[1\] of 2: found a PNG that is truncated"):
        tiled.predict([good, good[:100]])


def test_tiling_resizes_windows_for_a_network_of_fixed_size(transformed, tmp_path):
    export(
        _brightness_model(),
        transformed[0],
        str(tmp_path / "1"),
        _CLASS_MAP,
        _SIZE,
        {"model": "fcn8"},
        tiling=Tiling((64, 100), 0.25),
    )
    pixels = np.zeros((150, 130, 3), np.uint8)
    pixels[:75] = 255

    (answer,) = Predictor(str(tmp_path / "1")).predict([_encoded(pixels)])

    np.testing.assert_array_equal(answer.mask, np.repeat([[0], [1]], 75, axis=0).repeat(130, axis=1))


def test_the_outputs_are_those_of_the_network(predictor):
    dark, light = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 255, np.uint8)
    outputs = predictor._model.signatures["serving_default"](image=tf.constant([_encoded(dark), _encoded(light)]))

    assert outputs["class_map"].shape == (2, *_SIZE)
    assert np.unique(outputs["class_map"][0]) == [1]
    assert np.unique(outputs["class_map"][1]) == [0]
    np.testing.assert_allclose(outputs["class_share"], [[0, 1, 0], [1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(outputs["confidence"], [1, 1], atol=1e-6)


def test_evaluation_returns_the_masks_of_serving_for_any_batch_size(predictor):
    images = _images(19)
    evaluated = predictor._model.signatures["evaluation"](image=tf.constant(images))
    served = predictor._model.signatures["serving_default"](image=tf.constant(images))

    masks = [prediction.mask for prediction in predictor.predict(images)]
    assert len(evaluated["mask_png_bytes"]) == 19
    for data, mask in zip(evaluated["mask_png_bytes"].numpy(), masks, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), mask)
    assert set(evaluated) == {"mask_png_bytes", "confidence_png_bytes"}
    assert "confidence_png_bytes" not in served
    probabilities = predictor._model.signatures["probabilities"](image=tf.constant(images))["probabilities"]
    for data, mask, seen in zip(evaluated["confidence_png_bytes"].numpy(), masks, probabilities, strict=True):
        expected = tf.reduce_max(tf.image.resize(seen, mask.shape), axis=-1)
        np.testing.assert_allclose(decode_confidence(data) / 255, expected, atol=1 / 510 + 1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_with_flip_the_mask_of_a_mirror_image_is_the_mirrored_mask(transformed, tmp_path, flip):
    inputs = keras.Input((*_SIZE, 3))
    brightness = keras.ops.mean(inputs, axis=-1, keepdims=True) - 127.5
    # The class of a pixel depends on its left neighbours.
    shifted = keras.ops.pad(brightness, [[0, 0], [0, 0], [6, 0], [0, 0]])[:, :, :-6]
    logits = keras.ops.concatenate([shifted, -shifted, shifted * 0 - 1000.0], axis=-1) / 50
    model = keras.Model(inputs, logits)
    export(model, transformed[0], str(tmp_path), _CLASS_MAP, _SIZE, {"model": "toy"}, TestTimeAugmentation(flip))
    pixels = synthetic.render(7, 0, 0, _SIZE)[0]

    image, mirror = (p.mask for p in Predictor(str(tmp_path)).predict([_encoded(pixels), _encoded(pixels[:, ::-1])]))

    assert np.array_equal(mirror, image[:, ::-1]) == flip


@pytest.mark.parametrize("signature", ["serving_default", "evaluation", "probabilities", "preprocess"])
def test_a_bad_image_is_reported_with_its_place_in_the_batch(predictor, signature):
    images = _images(12)
    images[9] = images[9][:200]

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image\[9\] of 12: found a PNG that is truncated"):
        predictor._model.signatures[signature](image=tf.constant(images))


@pytest.mark.parametrize("signature", ["serving_default", "probabilities", "preprocess"])
def test_an_empty_batch_is_refused(predictor, signature):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image: found 0 images, expected at least 1"):
        predictor._model.signatures[signature](image=tf.constant([], tf.string))


def test_an_empty_batch_of_raw_pixels_is_refused(predictor):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image: found 0 images, expected at least 1"):
        predictor._model.signatures["raw"](image=tf.zeros([0, 8, 8, 3], tf.uint8))


def test_raw_pixels_give_the_same_result_as_a_png(predictor):
    pixels = np.stack([synthetic.render(7, 0, index, (60, 80))[0] for index in range(2)])

    raw = predictor._model.signatures["raw"](image=tf.constant(pixels))

    encoded = predictor._model.signatures["serving_default"](image=tf.constant([_encoded(image) for image in pixels]))
    assert raw.keys() == encoded.keys()
    for name, value in encoded.items():
        np.testing.assert_array_equal(raw[name], value)


@pytest.mark.parametrize("shape", [(1, 0, 8, 3), (1, 101, 100, 3)])
def test_raw_images_without_pixels_or_with_too_many_are_refused(predictor, shape):
    found = rf"image: found \[{shape[1]} {shape[2]}\] pixels \(height, width\), expected 1 to 10000 in all"
    with pytest.raises(tf.errors.InvalidArgumentError, match=found):
        predictor._model.signatures["raw"](image=tf.zeros(shape, tf.uint8))


def test_probabilities_agree_with_the_class_map(predictor):
    images = tf.constant(_images())

    probabilities = predictor._model.signatures["probabilities"](image=images)["probabilities"].numpy()

    class_map = predictor._model.signatures["serving_default"](image=images)["class_map"]
    assert probabilities.shape == (3, *_SIZE, 3)
    np.testing.assert_array_equal(probabilities.argmax(axis=-1), class_map)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def test_describe_returns_the_metadata_for_each_string_or_once(predictor):
    describe = predictor._model.signatures["describe"]

    answers = describe(unused=tf.constant(["", "any"]))["json"].numpy()

    assert [json.loads(answer) for answer in answers] == [predictor.metadata] * 2
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], predictor.directory)
    # TensorFlow Serving fills in the default of an input that a request leaves out.
    assert tf.make_ndarray(graph.signature_def["describe"].defaults["unused"]).tolist() == [b""]


def test_describe_returns_a_rewritten_metadata_file(exported, tmp_path):
    directory = str(tmp_path / "copy")
    shutil.copytree(exported, directory)
    write_model_metadata(directory, {"model": "fcn8", "metrics": {"mean_iou": 0.5}})

    (answer,) = tf.saved_model.load(directory).signatures["describe"](unused=tf.constant([""]))["json"].numpy()

    assert json.loads(answer)["metrics"] == {"mean_iou": 0.5}


def test_a_session_as_tensorflow_serving_opens_it_restores_every_weight(exported):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], exported)
        signature = graph.signature_def["serving_default"]
        outputs = {name: tensor.name for name, tensor in signature.outputs.items()}
        answer = session.run(outputs, {signature.inputs["image"].name: _images()})

    assert answer["class_map"].shape == (3, *_SIZE)


def test_the_model_answers_every_warm_up_request(exported, predictor):
    path = os.path.join(exported, WARMUP_FILE)
    logs = [prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(path)]

    requests = [log.predict_log.request for log in logs]
    answered = []
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = predictor._model.signatures[request.model_spec.signature_name](**inputs)
        answered.append((request.model_spec.signature_name, len(next(iter(answer.values())))))
    assert answered == [("serving_default", 1), ("serving_default", 8), ("raw", 1), ("probabilities", 1)]
    assert {request.model_spec.name for request in requests} == {"fcn8"}


def test_the_model_contains_classes_and_input_size(predictor):
    assert predictor.class_map == _CLASS_MAP
    assert predictor.metadata["input_size"] == list(_SIZE)
    assert predictor.metadata["model"] == "fcn8"


def test_the_newest_version_has_the_highest_number(tmp_path):
    for version in ("9", "10", ".tmp-11", "notes"):
        (tmp_path / version).mkdir()
    (tmp_path / "12").write_text("a file, not a version")

    assert find_version(str(tmp_path)) == os.path.join(str(tmp_path), "10")


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"expected an exported model"):
        find_version(str(tmp_path / "absent"))
