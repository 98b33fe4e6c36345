"""Writes warm-up requests, which TensorFlow Serving runs before it serves a new version.

Specification: https://www.tensorflow.org/tfx/serving/saved_model_warmup.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from components import features, files

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
BATCH_SIZES = (1, 8)


def write_warmup(directory: str, model_name: str, input_size: tuple[int, int], signatures: Collection[str]) -> None:
    """Writes the requests into an exported model: `serving_default` with every batch size, other signatures once.

    Only the given signatures get requests. Their images have the height and width of `input_size`, in pixels.
    """
    path = files.join(directory, WARMUP_FILE)
    tf.io.gfile.makedirs(files.join(directory, WARMUP_FILE.split("/")[0]))
    with tf.io.TFRecordWriter(path) as writer:
        for request in warmup_requests(model_name, input_size):
            if request.model_spec.signature_name not in signatures:
                continue
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def warmup_requests(model_name: str, input_size: tuple[int, int]) -> Iterator[predict_pb2.PredictRequest]:
    """Yields the requests. PNG and JPEG alternate, because each has its own decoder."""
    pixels = _pixels(*input_size)
    encoded = (tf.io.encode_png(pixels).numpy(), tf.io.encode_jpeg(pixels).numpy())
    for size in BATCH_SIZES:
        batch = [encoded[index % len(encoded)] for index in range(size)]
        yield _request(model_name, "serving_default", features.IMAGE, batch)
    yield _request(model_name, "raw", features.IMAGE, pixels[np.newaxis])
    for signature in ("probabilities", features.FIND_INSTANCES):
        yield _request(model_name, signature, features.IMAGE, list(encoded[:1]))


def _pixels(height: int, width: int) -> np.ndarray:
    """Returns an image of colour gradients, uint8 [height, width, 3]."""
    rows, columns = np.indices((height, width))
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=-1).astype(np.uint8)


def _request(model_name: str, signature: str, name: str, value: object) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request
