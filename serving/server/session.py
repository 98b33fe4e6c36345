"""A SavedModel in a session of its own, as TensorFlow Serving runs one.

Only the outputs that are asked for are computed, and closing the session frees the model at once.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from serving.server.errors import ServingError, status_of

_TAG = "serve"


class SavedModelSession:
    """A loaded SavedModel; fulfils `Runner`.

    Attributes:
        signatures: the model's signatures by name, `SignatureDef`.
    """

    def __init__(self, directory: str) -> None:
        """Loads a model.

        Args:
            directory: a SavedModel.

        Raises:
            Exception: whatever TensorFlow raises for a model that is missing, cut short or unknown to it.
        """
        graph = tf.Graph()
        options = tf.compat.v1.ConfigProto()
        options.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=graph, config=options)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(self._session, [_TAG], directory)
            self.signatures: dict[str, Any] = dict(meta_graph.signature_def)
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
        interrupt: bool = False,
    ) -> dict[str, np.ndarray]:
        """Runs one signature; see `Runner.run`. The caller has looked at the deadline."""
        signature = self.signatures[signature_name]
        feeds = {signature.inputs[name].name: array for name, array in inputs.items()}
        fetches = {name: signature.outputs[name].name for name in sorted(outputs)}
        try:
            return self._session.run(fetches, feeds, _timeout(deadline) if interrupt else None)
        except tf.errors.OpError as error:
            raise ServingError(*status_of(error)) from None

    def close(self) -> None:
        """Frees the model; no run is in progress or follows."""
        self._session.close()
        # A graph refers to itself, so only the garbage collector frees it, and that comes by too seldom by itself.
        del self._session
        gc.collect()


def _timeout(deadline: float | None) -> tf.compat.v1.RunOptions | None:
    if deadline is None:
        return None
    # TensorFlow takes 0 for no timeout.
    return tf.compat.v1.RunOptions(timeout_in_ms=max(math.ceil((deadline - time.monotonic()) * 1000), 1))
