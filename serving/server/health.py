"""The gRPC health service: SERVING only if every configured model has an available version.

Valid service names are "" (the whole server), the two services with and without their package, as in TensorFlow
Serving, and the name of each model.
"""

from __future__ import annotations

import threading
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from serving.server.registry import ModelRegistry

_STATUS = {True: health_pb2.HealthCheckResponse.SERVING, False: health_pb2.HealthCheckResponse.NOT_SERVING}
_MODEL_SERVICES = ("", "PredictionService", "tensorflow.serving.PredictionService")
_SERVER_SERVICES = ("ModelService", "tensorflow.serving.ModelService")


class Health(health.HealthServicer):
    """The health service; NOT_SERVING until `update` is called."""

    def __init__(self) -> None:
        super().__init__()
        self._updating = threading.Lock()
        self._serving: dict[str, bool] = {}
        self._update({})

    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Any = None) -> Any:
        """Streams the status of a known name. The base class would store every unknown name that a caller sends."""
        if request.service not in self._serving:
            context.abort(grpc.StatusCode.NOT_FOUND, "service: found an unknown name, expected a service or a model")
        return super().Watch(request, context, send_response_callback)

    def update(self, registry: ModelRegistry) -> None:
        """Sets the status of every model; models that are no longer configured become NOT_SERVING."""
        with self._updating:
            self._update({name: registry.is_available(name) for name in registry.model_names()})

    def _update(self, models: dict[str, bool]) -> None:
        services = {
            **dict.fromkeys(_MODEL_SERVICES, bool(models) and all(models.values())),
            **dict.fromkeys(_SERVER_SERVICES, True),
        }
        for name, serves in {**dict.fromkeys(self._serving, False), **models, **services}.items():
            # `set` notifies every watcher, so call it only for changes.
            if self._serving.get(name) is not serves:
                self._serving[name] = serves
                self.set(name, _STATUS[serves])
