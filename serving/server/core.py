"""The server's calls, independent of the protocol: predictions, metadata, version states, reload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from serving.request_log import RequestLog
from serving.server.admission import Admission
from serving.server.batching import BatchScheduler
from serving.server.configuration import check_config
from serving.server.errors import ServingError, invalid_argument, not_found
from serving.server.options import ServeOptions
from serving.server.registry import ModelRegistry
from serving.server.requests import choose_outputs, find_signature, read_inputs
from serving.server.servable import version_status
from serving.server.tensors import to_proto

_SIGNATURE_DEF = "signature_def"


class ServerCore:
    """Answers calls with the models of `registry`, as `admission` allows; gRPC and REST are layers over it."""

    def __init__(
        self,
        options: ServeOptions,
        on_change: Callable[[ModelRegistry], None],
        scheduler: BatchScheduler | None,
        request_log: RequestLog | None,
    ) -> None:
        """Starts without models; calls `on_change` after every change of a version's state."""
        # With batching, waiting requests enter as well: the batch scheduler can only merge those it knows.
        total = options.max_concurrent_requests + options.max_queue
        running = total if options.enable_batching else options.max_concurrent_requests
        self.admission = Admission(running, total - running, options.max_queue_wait_in_ms / 1000)
        self._options = options
        self._scheduler = scheduler
        self._request_log = request_log
        self.registry = ModelRegistry(options, on_change)

    def predict(
        self,
        request: PredictRequest,
        deadline: float | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
        interrupt: bool = False,
    ) -> PredictResponse:
        """Runs a model. Raises ServingError with TensorFlow Serving's status code and text.

        Args:
            request: the model and its inputs.
            deadline: `time.monotonic()` of the request's deadline, or None.
            is_wanted: returns whether the caller still waits.
            interrupt: stop a running model at the deadline; has no effect with batching.
        """
        response = PredictResponse()
        spec = _spec_of(request)
        with self.admission.enter(deadline), self.registry.use(spec) as (servable, session):
            if not is_wanted():
                raise ServingError(grpc.StatusCode.CANCELLED, "The caller cancelled the request")
            name, signature = find_signature(session.signatures, spec.signature_name)
            inputs = read_inputs(signature, request.inputs, self._options, session.max_pixels)
            wanted = choose_outputs(signature, request.output_filter)
            if self._scheduler is None:
                outputs = session.run(name, inputs, wanted, deadline if interrupt else None)
            else:
                outputs = self._scheduler.run(session, name, inputs, wanted, deadline)
            for output in wanted:
                response.outputs[output].CopyFrom(
                    to_proto(outputs[output], self._options.enable_serialization_as_tensor_content)
                )
        response.model_spec.name = servable.model
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = name
        if self._request_log is not None:
            # Without the outputs, because a class map has one byte per pixel.
            self._request_log.record(request, PredictResponse(model_spec=response.model_spec))
        return response

    def model_metadata(self, request: Any) -> GetModelMetadataResponse:
        """Returns the signatures of the version in a `GetModelMetadataRequest`. Raises ServingError."""
        spec = _spec_of(request)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise invalid_argument(f"Metadata field {field} is not supported")
        response = GetModelMetadataResponse()
        with self.registry.use(spec) as (servable, session):
            response.metadata[_SIGNATURE_DEF].Pack(SignatureDefMap(signature_def=session.signatures))
        response.model_spec.name = servable.model
        response.model_spec.version.value = servable.version
        return response

    def model_status(self, request: Any) -> GetModelStatusResponse:
        """Returns the states of the versions in a `GetModelStatusRequest`. Raises ServingError."""
        spec = _spec_of(request)
        versions = self.registry.versions(spec.name)
        missing = f"Could not find any versions of model {spec.name}"
        if spec.HasField("version"):
            versions = [servable for servable in versions if servable.version == spec.version.value]
            missing = f"Could not find version {spec.version.value} of model {spec.name}"
        if not versions:
            raise not_found(missing)
        return GetModelStatusResponse(model_version_status=map(version_status, versions))

    def reload(self, config: Any) -> None:
        """Replaces the served models by those of a `ModelServerConfig`, all or nothing; an empty one changes nothing.

        Waits until every new model is available or has failed. Raises ServingError as `ModelRegistry.reload`.
        """
        if config.WhichOneof("config") is not None:
            self.registry.reload(check_config(config))


def _spec_of(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return request.model_spec
