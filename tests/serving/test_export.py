"""The exported model: what its signatures return, and that serving sees the pixels training saw."""

import functools
import io
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from PIL import Image
from tensorflow_transform.tf_metadata import dataset_metadata

from components import features, preprocessing, schema
from components.class_map import ClassMap
from components.dataset import synthetic
from components.errors import UsageError
from serving.export import export
from serving.predictor import Predictor, find_version
from serving.signatures import image_size

_SIZE = (32, 48)
_CLASS_MAP = ClassMap(("sky", "road", "void"), ((0, 0, 255), (128, 64, 128), (0, 0, 0)), ignore_index=2)


def _encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _images(count=3):
    """Encoded street scenes of different sizes, a JPEG among them."""
    sizes = [(60, 80), (48, 64), (90, 70)]
    pixels = [synthetic.render(7, 0, index, sizes[index % 3])[0] for index in range(count)]
    return [_encoded(image, "JPEG" if index == 1 else "PNG") for index, image in enumerate(pixels)]


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    """Runs Transform for real: (its output directory, the transformed features of `_images()`)."""
    raw = [
        {
            features.IMAGE: image,
            features.MASK: _encoded(np.zeros((8, 8), np.uint8)),
            **dict.fromkeys((features.NAME, features.SEQUENCE, features.CONTENT_HASH), b"x"),
            **dict.fromkeys((features.HEIGHT, features.WIDTH), 8),
            **{features.class_share(name): 0.0 for name in _CLASS_MAP.names},
        }
        for image in _images()
    ]
    metadata = dataset_metadata.DatasetMetadata(schema.raw_schema(_CLASS_MAP, 8192))
    function = functools.partial(preprocessing.preprocessing_fn, custom_config={"input_size": list(_SIZE)})
    directory = str(tmp_path_factory.mktemp("transform"))
    with tft_beam.Context(temp_dir=str(tmp_path_factory.mktemp("beam"))):
        (outputs, _), transform_fn = (raw, metadata) | tft_beam.AnalyzeAndTransformDataset(function)
        _ = transform_fn | tft_beam.WriteTransformFn(directory)
    return directory, outputs


@pytest.fixture(scope="module")
def exported(transformed, tmp_path_factory):
    """A model that calls a pixel road where it is dark, exported with the real Transform graph."""
    inputs = keras.Input((*_SIZE, 3))
    brightness = keras.ops.mean(inputs, axis=-1, keepdims=True)
    logits = keras.ops.concatenate([brightness, 255.0 - brightness, brightness * 0 - 1000.0], axis=-1)
    directory = str(tmp_path_factory.mktemp("serving") / "fcn8" / "12")
    export(keras.Model(inputs, logits), transformed[0], directory, _CLASS_MAP, _SIZE, {"model": "fcn8"})
    return directory


@pytest.fixture(scope="module")
def predictor(exported):
    return Predictor(exported)


def test_serving_sees_the_pixels_that_training_saw_bit_for_bit(predictor, transformed):
    served = predictor._model.signatures["preprocess"](image=tf.constant(_images()))["pixels"].numpy()

    trained = [tf.io.decode_png(row[features.TRANSFORMED_IMAGE]).numpy() for row in transformed[1]]
    np.testing.assert_array_equal(served, np.stack(trained))


def test_each_mask_has_its_image_s_own_size(predictor):
    masks = [prediction.mask for prediction in predictor.predict(_images())]

    assert [mask.shape for mask in masks] == [(60, 80), (48, 64), (90, 70)]
    assert all(mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1} for mask in masks)


def test_the_answer_is_the_network_s(predictor):
    dark, light = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 255, np.uint8)
    outputs = predictor._model.signatures["serving_default"](image=tf.constant([_encoded(dark), _encoded(light)]))

    assert outputs["class_map"].shape == (2, *_SIZE)
    assert np.unique(outputs["class_map"][0]) == [1]
    assert np.unique(outputs["class_map"][1]) == [0]
    np.testing.assert_allclose(outputs["class_share"], [[0, 1, 0], [1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(outputs["confidence"], [1, 1], atol=1e-6)


def test_evaluation_returns_the_masks_that_serving_returns_whatever_the_batch(predictor):
    images = _images(19)
    evaluated = predictor._model.signatures["evaluation"](image=tf.constant(images))["mask_png"].numpy()

    served = [prediction.mask for prediction in predictor.predict(images)]
    assert len(evaluated) == 19
    for data, mask in zip(evaluated, served, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), mask)


@pytest.mark.parametrize("flip", [False, True])
def test_a_flip_makes_the_answer_to_a_mirror_image_the_mirrored_answer(transformed, tmp_path, flip):
    inputs = keras.Input((*_SIZE, 3))
    brightness = keras.ops.mean(inputs, axis=-1, keepdims=True) - 127.5
    # Every pixel is called what its left neighbours are.
    shifted = keras.ops.pad(brightness, [[0, 0], [0, 0], [6, 0], [0, 0]])[:, :, :-6]
    logits = keras.ops.concatenate([shifted, -shifted, shifted * 0 - 1000.0], axis=-1) / 50
    model = keras.Model(inputs, logits)
    export(model, transformed[0], str(tmp_path), _CLASS_MAP, _SIZE, {"model": "toy"}, test_time_flip=flip)
    pixels = synthetic.render(7, 0, 0, _SIZE)[0]

    image, mirror = (p.mask for p in Predictor(str(tmp_path)).predict([_encoded(pixels), _encoded(pixels[:, ::-1])]))

    assert np.array_equal(mirror, image[:, ::-1]) == flip


def test_an_image_that_is_no_image_is_an_error_not_an_answer(predictor):
    with pytest.raises(tf.errors.InvalidArgumentError):
        predictor.predict([b"not an image"])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_size_is_read_from_the_header(kind):
    data = _encoded(np.zeros((37, 53, 3), np.uint8), kind)

    assert image_size(tf.constant(data)).numpy().tolist() == [37, 53]


def test_classes_and_input_size_travel_inside_the_model(predictor):
    assert predictor.class_map == _CLASS_MAP
    assert predictor.metadata["input_size"] == list(_SIZE)
    assert predictor.metadata["model"] == "fcn8"


def test_the_newest_version_is_taken_by_number(tmp_path):
    for version in ("9", "10", ".tmp-11", "notes"):
        (tmp_path / version).mkdir()

    assert find_version(str(tmp_path)) == os.path.join(str(tmp_path), "10")


def test_a_folder_without_a_model_says_what_is_expected(tmp_path):
    with pytest.raises(UsageError, match=r"expected an exported model"):
        find_version(str(tmp_path / "absent"))
