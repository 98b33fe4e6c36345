"""Loads a version and sends it its warm-up requests, so that its first client does not wait for a cold graph.

Specification: https://www.tensorflow.org/tfx/serving/saved_model_warmup.
"""

from __future__ import annotations

import dataclasses
import sys

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components import files
from serving.server.errors import ServingError, invalid_argument
from serving.server.requests import RequestLimits, choose_outputs, find_signature, read_inputs
from serving.server.session import SavedModelSession
from serving.warmup import WARMUP_FILE

_MAX_RECORDS = 1000


def load(directory: str, limits: RequestLimits, warm_up: bool, iterations: int = 1) -> SavedModelSession:
    """Loads a SavedModel.

    Args:
        directory: the SavedModel.
        limits: of clients' requests; those that warm it up came with it and may be larger.
        warm_up: whether to send the requests in its `assets.extra/tf_serving_warmup_requests`.
        iterations: how often each is sent.

    Raises:
        ServingError: a warm-up request failed.
        Exception: whatever TensorFlow raises for a model that it cannot load.
    """
    session = SavedModelSession(directory)
    try:
        if warm_up:
            _warm_up(session, files.join(directory, WARMUP_FILE), limits, iterations)
    except BaseException:
        session.close()
        raise
    return session


def _warm_up(session: SavedModelSession, path: str, limits: RequestLimits, iterations: int) -> None:
    if not tf.io.gfile.exists(path):
        return
    limits = dataclasses.replace(
        limits,
        max_image_pixels=sys.maxsize,
        max_images=sys.maxsize,
        max_tensor_bytes=max(limits.max_tensor_bytes, RequestLimits.max_tensor_bytes),
    )
    try:
        for number, record in enumerate(tf.data.TFRecordDataset(path).as_numpy_iterator()):
            if number == _MAX_RECORDS:
                raise invalid_argument(f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {path}")
            log = prediction_log_pb2.PredictionLog.FromString(record)
            for _ in range(iterations):
                _replay(session, log, limits)
    except tf.errors.DataLossError as error:
        raise invalid_argument(f"{error.message}. Please verify your warmup data is in TFRecord format.") from None


def _replay(session: SavedModelSession, log: prediction_log_pb2.PredictionLog, limits: RequestLimits) -> None:
    if log.WhichOneof("log_type") != "predict_log":
        raise invalid_argument(f"Unsupported log_type for warmup: {log.WhichOneof('log_type')}; expected predict_log")
    request = log.predict_log.request
    try:
        name, signature = find_signature(session.signatures, request.model_spec.signature_name)
        inputs = read_inputs(signature, request.inputs, limits)
        session.run(name, inputs, choose_outputs(signature, request.output_filter))
    except ServingError as error:
        raise ServingError(error.code, f"warm-up request failed: {error.message}") from None
