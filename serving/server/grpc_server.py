"""The gRPC server: TensorFlow Serving's services, health checks, reflection, request limits and TLS."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc

from components.errors import UsageError
from serving.client.protocol import MODELS_HEADER
from serving.http_server import host_port
from serving.server.configuration import channel_arguments
from serving.server.core import ServerCore
from serving.server.errors import ServingError, invalid_argument, status_of, unimplemented
from serving.server.monitoring import Metrics
from serving.server.options import ServeOptions
from serving.server.registry import ModelRegistry

_LOG = logging.getLogger("segpipe.serving")
_SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
# Open streams of health watches and reflection. Each occupies a thread.
_MAX_STREAMS = 16
# Threads besides those for predictions and streams: for health checks, status calls and errors.
_SPARE_THREADS = 16
_SECONDS_TO_FLUSH = 1.0
# In bytes. gRPC sends a status in headers of at most 8 KiB, with three bytes per non-ASCII byte; messages quote input.
_MAX_MESSAGE_BYTES = 2000
_STATUS = {True: health_pb2.HealthCheckResponse.SERVING, False: health_pb2.HealthCheckResponse.NOT_SERVING}
_MODEL_SERVICES = ("", "PredictionService", "tensorflow.serving.PredictionService")
_SERVER_SERVICES = ("ModelService", "tensorflow.serving.ModelService")


class GrpcServer:
    """Serves gRPC until it is stopped. `port` is the port that it listens on, 0 if only on a Unix socket."""

    def __init__(
        self,
        core: ServerCore,
        metrics: Metrics,
        health_state: Health,
        options: ServeOptions,
        credentials: grpc.ServerCredentials | None,
    ) -> None:
        """Starts listening, with TLS if there are credentials. Raises UsageError if an address is not available."""
        threads = options.max_concurrent_requests + options.max_queue + _MAX_STREAMS + _SPARE_THREADS
        arguments = {
            "grpc.max_receive_message_length": options.max_message_bytes,
            "grpc.max_send_message_length": -1,
            "grpc.so_reuseport": 0,
            **channel_arguments(options.grpc_channel_arguments),
        }
        self._credentials = credentials
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(threads, "grpc"),
            options=list(arguments.items()),
            # Limits the calls that wait for a thread. Admission rejects predictions long before.
            maximum_concurrent_rpcs=threads * 2,
            interceptors=[_StreamLimit()],
        )
        services = _services(core, metrics)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(services, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(services, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(health_state, self._server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        host, port, path = options.host, options.port, options.grpc_socket_path
        if path:
            self._bind("--grpc_socket_path", f"unix:{path}", "a path of at most 107 bytes in a writable folder")
        # As in TensorFlow Serving's server.cc, port 0 means no port if there is a socket.
        self.port = 0
        if port or not path:
            self.port = self._bind(f"--port {port}", host_port(host, port), "a free port; --port 0 picks one")
        self._server.start()

    def stop(self) -> None:
        """Sends the last responses, then ends all calls, because health watches never end by themselves."""
        self._server.stop(_SECONDS_TO_FLUSH).wait()

    def _bind(self, flag: str, address: str, expected: str) -> int:
        try:
            if self._credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, self._credentials))
        except RuntimeError:
            raise UsageError(f"{flag}: could not listen on {address}, expected {expected}") from None


class Health(health.HealthServicer):
    """The health service: SERVING only if every configured model has an available version.

    It answers NOT_SERVING until `update` is called.

    Valid service names are "" (the whole server), the two services with and without their package, as in TensorFlow
    Serving, and the name of each model.
    """

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


def _services(core: ServerCore, metrics: Metrics) -> types.SimpleNamespace:
    """Returns the methods of PredictionService and ModelService by name."""

    def predict(request: Any, context: grpc.ServicerContext) -> Any:
        remaining = context.time_remaining()
        # Without a deadline, some versions of gRPC return None and others infinity.
        has_deadline = remaining is not None and remaining < threading.TIMEOUT_MAX
        return core.predict(request, time.monotonic() + remaining if has_deadline else None, context.is_active)

    def count(request: Any, code: grpc.StatusCode, seconds: float) -> None:
        metrics.request(request.model_spec.name, "Predict", "GRPC", code, seconds)

    def status(request: Any, context: grpc.ServicerContext) -> Any:
        names = "\n".join(core.registry.model_names()).encode()
        if len(names) <= _MAX_MESSAGE_BYTES:
            context.set_trailing_metadata(((MODELS_HEADER, names),))
        return core.model_status(request)

    def reload(request: Any, context: grpc.ServicerContext) -> Any:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument("config: found no model_config_list, expected one")
        core.reload(request.config)
        return model_management_pb2.ReloadConfigResponse()

    def refuse(request: Any, context: grpc.ServicerContext) -> Any:
        raise unimplemented(
            "Found a call with tf.Examples, which segmentation models do not support. Call Predict instead"
        )

    return types.SimpleNamespace(
        Predict=_method(predict, count),
        GetModelMetadata=_method(lambda request, context: core.model_metadata(request)),
        GetModelStatus=_method(status),
        HandleReloadConfigRequest=_method(reload),
        **dict.fromkeys(("Classify", "Regress", "MultiInference"), _method(refuse)),
    )


def _method(
    call: Callable[[Any, grpc.ServicerContext], Any],
    record: Callable[[Any, grpc.StatusCode, float], None] = lambda request, code, seconds: None,
) -> Callable[[Any, grpc.ServicerContext], Any]:
    """Returns a gRPC method that runs a call and turns its errors into a status; `record` gets status and seconds."""

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        began, response, message = time.monotonic(), None, ""
        try:
            response, code = call(request, context), grpc.StatusCode.OK
        except ServingError as error:
            code, message = error.code, error.message
        except Exception as error:
            _LOG.exception("unexpected error in a gRPC call")
            code, message = grpc.StatusCode.INTERNAL, status_of(error)[1]
        record(request, code, time.monotonic() - began)
        if response is None:
            context.abort(code, message.encode()[:_MAX_MESSAGE_BYTES].decode(errors="ignore"))
        return response

    return answer


class _StreamLimit(grpc.ServerInterceptor):
    """Rejects a streaming call if too many streams are open."""

    def __init__(self) -> None:
        self._slots = threading.Semaphore(_MAX_STREAMS)

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        if handler is None or not handler.response_streaming:
            return handler
        kind = "stream_stream" if handler.request_streaming else "unary_stream"

        def limited(request: Any, context: grpc.ServicerContext) -> Any:
            if not self._slots.acquire(blocking=False):
                context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"Found {_MAX_STREAMS} open streams of health and reflection, the limit; close one",
                )
            if not context.add_callback(self._slots.release):
                self._slots.release()
            return getattr(handler, kind)(request, context)

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(limited, handler.request_deserializer, handler.response_serializer)
