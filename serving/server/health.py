"""The gRPC health service: SERVING only if every configured model has a version that serves.

It knows "" (the whole server), the two services, with and without their package as in TensorFlow Serving, and each
model's own name.
"""

from __future__ import annotations

import threading
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from serving.server.registry import ModelRegistry

_STATUS = {True: health_pb2.HealthCheckResponse.SERVING, False: health_pb2.HealthCheckResponse.NOT_SERVING}
_OF_MODELS = ("", "PredictionService", "tensorflow.serving.PredictionService")
_OF_SERVER = ("ModelService", "tensorflow.serving.ModelService")


class Health(health.HealthServicer):
    """The health service, which starts with no model that serves."""

    def __init__(self) -> None:
        super().__init__()
        self._updating = threading.Lock()
        self._serving: dict[str, bool] = {}
        self._update({})

    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Any = None) -> Any:
        """Streams the states of a name. The base class would keep every name that was ever watched."""
        if request.service not in self._serving:
            context.abort(grpc.StatusCode.NOT_FOUND, "service: found a name that is neither a service nor a model")
        return super().Watch(request, context, send_response_callback)

    def update(self, registry: ModelRegistry) -> None:
        """Takes over the state of the models; one that is no longer configured does not serve."""
        with self._updating:
            self._update({name: registry.is_available(name) for name in registry.model_names()})

    def _update(self, models: dict[str, bool]) -> None:
        services = {
            **dict.fromkeys(_OF_MODELS, bool(models) and all(models.values())),
            **dict.fromkeys(_OF_SERVER, True),
        }
        for name, serves in {**dict.fromkeys(self._serving, False), **models, **services}.items():
            # Every `set` is sent to those who watch, so only changes are set.
            if self._serving.get(name) is not serves:
                self._serving[name] = serves
                self.set(name, _STATUS[serves])
