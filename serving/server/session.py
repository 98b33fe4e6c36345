"""A SavedModel in its own TensorFlow session, as in TensorFlow Serving.

A run computes only the requested outputs, and closing the session frees the model at once.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from components import files
from components.artifact_files import read_model_metadata
from serving.server.errors import ServingError, invalid_argument, status_of
from serving.server.options import ServeOptions
from serving.server.requests import choose_outputs, find_signature, read_inputs
from serving.warmup import WARMUP_FILE

_MAX_WARMUP_RECORDS = 1000


class SavedModelSession:
    """A loaded SavedModel; thread-safe. `max_pixels` is the largest image that it decodes, None if unknown."""

    def __init__(self, directory: str) -> None:
        """Loads a SavedModel. Raises TensorFlow's errors if it is missing, truncated or of an unknown format."""
        graph = tf.Graph()
        options = tf.compat.v1.ConfigProto()
        options.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=graph, config=options)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], directory)
            self.signatures: dict[str, Any] = dict(meta_graph.signature_def)
            self.max_pixels = _max_pixels(directory)
            graph.finalize()
        except BaseException:
            self._session.close()
            raise

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns the named outputs of a signature for checked inputs; strings are object arrays of bytes.

        Stops at the `deadline`, a `time.monotonic()`. Raises ServingError at the deadline and for the model's errors.
        """
        signature = self.signatures[signature_name]
        feeds = {signature.inputs[name].name: array for name, array in inputs.items()}
        fetches = {name: signature.outputs[name].name for name in sorted(outputs)}
        options = None
        if deadline is not None:
            # 0 would mean no timeout.
            milliseconds = max(math.ceil((deadline - time.monotonic()) * 1000), 1)
            options = tf.compat.v1.RunOptions(timeout_in_ms=milliseconds)
        try:
            return self._session.run(fetches, feeds, options)
        except tf.errors.OpError as error:
            raise ServingError(*status_of(error)) from None

    def close(self) -> None:
        """Frees the model. No run may be in progress or follow."""
        self._session.close()
        # Graphs contain reference cycles, so only the garbage collector frees them, and it rarely runs by itself.
        del self._session
        gc.collect()


def load(directory: str, options: ServeOptions) -> SavedModelSession:
    """Loads a SavedModel and, with `enable_model_warmup`, runs its warm-up requests.

    Specification: https://www.tensorflow.org/tfx/serving/saved_model_warmup. Warm-up requests are part of the model,
    so the limits for clients' requests do not apply to them. Raises ServingError if a warm-up request fails, and
    TensorFlow's errors if the model cannot be loaded.
    """
    session = SavedModelSession(directory)
    try:
        path = files.join(directory, WARMUP_FILE)
        if options.enable_model_warmup and tf.io.gfile.exists(path):
            _warm_up(session, path, options)
    except BaseException:
        session.close()
        raise
    return session


def _warm_up(session: SavedModelSession, path: str, options: ServeOptions) -> None:
    limits = ServeOptions(
        max_image_pixels=sys.maxsize,
        max_images_per_request=sys.maxsize,
        max_message_bytes=max(options.max_message_bytes, ServeOptions.max_message_bytes),
    )
    try:
        for number, record in enumerate(tf.data.TFRecordDataset(path).as_numpy_iterator()):
            if number == _MAX_WARMUP_RECORDS:
                raise invalid_argument(
                    f"Number of warmup records exceeds the maximum ({_MAX_WARMUP_RECORDS}) at {path}"
                )
            log = PredictionLog.FromString(record)
            kind = log.WhichOneof("log_type")
            if kind != "predict_log":
                raise invalid_argument(f"Unsupported log_type for warmup: {kind}; expected predict_log")
            for _ in range(max(options.num_request_iterations_for_warmup, 1)):
                _replay(session, log.predict_log.request, limits)
    except tf.errors.DataLossError as error:
        raise invalid_argument(f"{error.message}. Please verify your warmup data is in TFRecord format.") from None


def _replay(session: SavedModelSession, request: Any, limits: ServeOptions) -> None:
    try:
        name, signature = find_signature(session.signatures, request.model_spec.signature_name)
        inputs = read_inputs(signature, request.inputs, limits)
        session.run(name, inputs, choose_outputs(signature, request.output_filter))
    except ServingError as error:
        raise ServingError(error.code, f"warm-up request failed: {error.message}") from None


def _max_pixels(directory: str) -> int | None:
    try:
        return int(read_model_metadata(directory)["max_pixels"])
    except (OSError, ValueError, LookupError, TypeError):
        return None  # not exported by segpipe
