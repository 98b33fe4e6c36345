"""The gRPC port: services, health and reflection, bounds on what one may send, and TLS."""

from __future__ import annotations

import concurrent.futures

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from components.errors import UsageError
from serving.server.grpc_services import ModelService, PredictionService
from serving.server.health import Health

_SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
# Threads beyond those that predictions can hold, for health, status and refusals.
_SPARE_THREADS = 16
_SECONDS_TO_FLUSH = 1.0


class GrpcServer:
    """Serves gRPC until it is stopped.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self,
        prediction: PredictionService,
        models: ModelService,
        health_state: Health,
        host: str,
        port: int,
        max_predictions: int,
        max_message_bytes: int,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """Binds the port and starts serving.

        Args:
            prediction: answers predictions.
            models: answers questions about models.
            health_state: answers probes.
            host: address to listen at.
            port: port to listen at, 0 for a free one.
            max_predictions: predictions that may run or wait at once.
            max_message_bytes: largest request.
            credentials: of TLS, None for plain text.

        Raises:
            UsageError: the port cannot be had.
        """
        threads = max_predictions + _SPARE_THREADS
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(threads, "grpc"),
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
            # The gate refuses predictions long before; this bounds what waits for a thread.
            maximum_concurrent_rpcs=threads * 2,
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(health_state.servicer, self._server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = self._bind(host, port, credentials)
        self._server.start()

    def stop(self) -> None:
        """Ends, once the last answers have left. Whoever watches the health service would never end by itself."""
        self._server.stop(_SECONDS_TO_FLUSH).wait()

    def _bind(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError:
            raise UsageError(
                f"--port {port}: could not listen at {address}, expected a free port; --port 0 takes any"
            ) from None
