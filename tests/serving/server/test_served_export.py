"""An exported model on the server: it returns the same predictions as in this process."""

import base64
import functools
import io

import grpc
import httpx
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from PIL import Image
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_transform.tf_metadata import dataset_metadata
from toy_models import Channel, connected, serving

from components import features, preprocessing, schema
from components.class_map import ClassMap
from components.dataset import synthetic
from pipeline.watch.sources import REQUESTS, read_source
from serving.client import Client
from serving.export import export
from serving.predictor import Predictor

_SIZE = (24, 32)
_CLASS_MAP = ClassMap(("sky", "road", "void"), ((0, 0, 255), (128, 64, 128), (0, 0, 0)), ignore_index=2)


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def image():
    """A street scene, larger than the network's input."""
    return _png(synthetic.render(7, 0, 0, (60, 80))[0])


@pytest.fixture(scope="module")
def base_path(image, tmp_path_factory):
    """A folder with one version of an untrained model, exported with Transform's real graph."""
    raw = {
        features.IMAGE: image,
        features.MASK: _png(np.zeros((8, 8), np.uint8)),
        **dict.fromkeys((features.NAME, features.SEQUENCE, features.SPLIT, features.CONTENT_HASH), b"x"),
        **dict.fromkeys((features.HEIGHT, features.WIDTH), 8),
        **{features.class_share(name): 0.0 for name in _CLASS_MAP.names},
    }
    metadata = dataset_metadata.DatasetMetadata(schema.raw_schema(_CLASS_MAP, 8192))
    function = functools.partial(
        preprocessing.preprocessing_fn, custom_config={"input_size": list(_SIZE), "normalize_exposure": False}
    )
    transform = str(tmp_path_factory.mktemp("transform"))
    with tft_beam.Context(temp_dir=str(tmp_path_factory.mktemp("beam"))):
        _, transform_fn = ([raw], metadata) | tft_beam.AnalyzeAndTransformDataset(function)
        _ = transform_fn | tft_beam.WriteTransformFn(transform)
    inputs = keras.Input((*_SIZE, 3))
    hidden = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    network = keras.Model(inputs, keras.layers.Conv2D(_CLASS_MAP.num_classes, 1)(hidden))
    served = tmp_path_factory.mktemp("served")
    export(network, transform, str(served / "1"), _CLASS_MAP, _SIZE, {"model": "tiny"})
    return served


@pytest.fixture(scope="module")
def served(base_path):
    """A connection to a server that batches, and the same model in this process."""
    with connected(model_base_path=base_path, enable_batching=True) as connection:
        yield connection, Predictor(str(base_path))


def test_the_answer_is_that_of_the_model_in_this_process(served, image):
    connection, predictor = served

    answer = connection.predict({"image": [image]})

    (expected,) = predictor.predict([image])
    mask = np.asarray(Image.open(io.BytesIO(answer.outputs["mask_png_bytes"].string_val[0])))
    np.testing.assert_array_equal(mask, expected.mask)
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["class_share"])[0], expected.class_share)
    assert answer.outputs["class_map"].dtype == tf.uint8.as_datatype_enum


def test_one_corrupt_image_in_a_batch_is_named(served, image):
    connection, _ = served

    code, text = connection.refusal({"image": [image, image[:100]]})

    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "image[1] of 2" in text


def test_the_client_reads_the_description(served, image):
    connection, predictor = served
    target = connection.channel._channel.target().decode().removeprefix("dns:///")
    with Client(target, model="toy") as client:
        answer = client.segment(image)
        described = client.describe()

    np.testing.assert_array_equal(answer.class_map, predictor.predict([image])[0].mask)
    assert described.class_map.names == predictor.class_map.names
    assert answer.version == 1


def test_predictions_are_logged_for_watch(base_path, image, tmp_path):
    with serving(model_base_path=base_path, rest_api_port=0, request_log_dir=tmp_path / "log") as server:
        connection = Channel(server.port)
        with connection.channel:
            connection.predict({"image": [image]})
            connection.refusal({"image": [image[:100]]})
        body = {"instances": [{"b64": base64.b64encode(image).decode()}]}
        url = f"http://localhost:{server.rest_port}/v1/models/toy:predict"
        assert httpx.post(url, json=body, timeout=60, trust_env=False).status_code == 200

    found = read_source(str(tmp_path / "log"), 10, "train")
    assert (found.kind, found.unreadable) == (REQUESTS, 0)
    assert [each.image for each in found.images] == [image, image]
    (file,) = (tmp_path / "log").iterdir()
    records = [PredictionLog.FromString(each.numpy()) for each in tf.data.TFRecordDataset(str(file))]
    assert [each.predict_log.response.model_spec.version.value for each in records] == [1, 1]
    assert [len(each.predict_log.response.outputs) for each in records] == [0, 0]
