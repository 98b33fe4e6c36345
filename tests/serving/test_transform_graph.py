"""The part of Transform's graph in an exported model."""

from __future__ import annotations

import gc
import io
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import features, preprocessing
from serving.transform_graph import TransformGraph

_SIZE = (16, 24)


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


_IMAGE = _png(np.random.default_rng(0).integers(0, 100, (*_SIZE, 3), np.uint8))
_DARK = _png(np.random.default_rng(0).integers(1000, 1100, _SIZE, np.uint16))


def _write(directory, function):
    """Writes a preprocessing function as Transform does."""

    @tf.function(input_signature=[{name: tf.TensorSpec([None], tf.string) for name in (features.IMAGE, features.MASK)}])
    def transform(inputs):
        return function(inputs)

    module = tf.Module()
    module.transform_fn = transform.get_concrete_function()
    tf.saved_model.save(module, f"{directory}/transform_fn")
    return str(directory), transform


def _configured(directory, even=False, image_range=None):
    config = {"input_size": list(_SIZE), "normalize_exposure": even, "image_range": image_range}
    return _write(directory, lambda inputs: preprocessing.preprocessing_fn(inputs, config))


def _operations(graph):
    """Returns the types of all operations of a graph, including those of its loops and branches."""
    definition = graph.as_graph_def()
    bodies = {each.signature.name: each.node_def for each in definition.library.function}

    def of(nodes):
        for node in nodes:
            yield node.op
            for value in node.attr.values():
                if value.HasField("func"):
                    yield from of(bodies[value.func.name])

    return set(of(definition.node))


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("image_range", [None, [900, 1200]])
def test_the_pixels_are_those_of_the_png_that_transform_writes(tmp_path, even, image_range):
    directory, transform = _configured(tmp_path, even, image_range)
    graph = TransformGraph(directory)
    images = tf.constant([_IMAGE, _DARK])

    written = transform({features.IMAGE: images, features.MASK: tf.constant([_IMAGE] * 2)})[features.TRANSFORMED_IMAGE]

    pixels = graph.pixels(images).numpy()
    np.testing.assert_array_equal(pixels, [tf.io.decode_png(data).numpy() for data in written])
    # At the network's input size nothing is resized.
    np.testing.assert_array_equal(graph.own_pixels(tf.constant(_IMAGE)), pixels[0])
    np.testing.assert_array_equal(graph.own_pixels(tf.constant(_DARK)), pixels[1])


def test_the_graph_outlives_its_loaded_folder(tmp_path):
    directory, transform = _configured(tmp_path)
    expected = tf.io.decode_png(
        transform({name: [_IMAGE] for name in (features.IMAGE, features.MASK)})[features.TRANSFORMED_IMAGE][0]
    )
    graph = TransformGraph(directory)
    graph.pixels.get_concrete_function()
    shutil.rmtree(directory)
    gc.collect()

    np.testing.assert_array_equal(graph.pixels(tf.constant([_IMAGE]))[0], expected)


def test_nothing_is_encoded_to_make_pixels(tmp_path):
    graph = TransformGraph(_configured(tmp_path)[0])

    operations = _operations(graph.pixels.get_concrete_function().graph)

    assert "DecodeImage" in operations
    assert "EncodePng" not in operations


def test_a_graph_of_another_version_is_refused(tmp_path):
    directory, _ = _write(tmp_path, lambda inputs: {features.TRANSFORMED_IMAGE: inputs[features.IMAGE]})

    with pytest.raises(ValueError, match=r"transform_fn: found no node encoded_images, .* run Transform again"):
        TransformGraph(directory)
