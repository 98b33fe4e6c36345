"""The gRPC health service: SERVING is said only while every configured model has a version that serves.

Names that may be asked for: "" (the whole server), the two services, with and without their package as
TensorFlow Serving has them, and each model's own name.
"""

from __future__ import annotations

import threading

from grpc_health.v1 import health, health_pb2

from serving.server.registry import ModelRegistry

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_OF_MODELS = ("", "PredictionService", "tensorflow.serving.PredictionService")
_OF_SERVER = ("ModelService", "tensorflow.serving.ModelService")


class Health:
    """Keeps the health service up to date.

    Attributes:
        servicer: what answers.
    """

    def __init__(self) -> None:
        """Says that no model serves."""
        self.servicer = health.HealthServicer()
        self._said: dict[str, bool] = {}
        self._lock = threading.Lock()
        for name in _OF_MODELS:
            self._say(name, False)
        for name in _OF_SERVER:
            self.servicer.set(name, _SERVING)

    def update(self, registry: ModelRegistry) -> None:
        """Says how the models are now; one that is no longer configured does not serve."""
        with self._lock:
            models = {name: registry.is_available(name) for name in registry.model_names()}
            ready = bool(models) and all(models.values())
            gone = dict.fromkeys(self._said, False)
            for name, serves in {**gone, **models, **dict.fromkeys(_OF_MODELS, ready)}.items():
                self._say(name, serves)

    def leave(self) -> None:
        """Says NOT_SERVING from now on, so that balancers send no more requests."""
        self.servicer.enter_graceful_shutdown()

    def _say(self, name: str, serves: bool) -> None:
        # Every `set` is sent to whoever watches, so only changes are set.
        if self._said.get(name) != serves:
            self._said[name] = serves
            self.servicer.set(name, _SERVING if serves else _NOT_SERVING)
