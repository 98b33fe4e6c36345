"""What the server can be asked, whatever the protocol: predictions, metadata, states, a new configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from serving.request_log import RequestLog
from serving.server.admission import Admission
from serving.server.batching import BatchScheduler
from serving.server.errors import ServingError, invalid_argument, not_found
from serving.server.model_config import check_config
from serving.server.options import ServeOptions
from serving.server.registry import ModelRegistry
from serving.server.requests import choose_outputs, find_signature, read_inputs
from serving.server.servable import version_status
from serving.server.tensors import to_proto

_SIGNATURE_DEF = "signature_def"


class ServerCore:
    """Answers calls with the models in `registry`, if `admission` lets them in; gRPC and REST are layers over it."""

    def __init__(
        self,
        options: ServeOptions,
        on_change: Callable[[ModelRegistry], None],
        scheduler: BatchScheduler | None,
        request_log: RequestLog | None,
    ) -> None:
        """Starts without models; `on_change` is called after every change of a version's state."""
        # The batch scheduler needs to see waiting requests to merge them, so with batching all of them may enter.
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
        """Runs a model. Raises ServingError with the status code and text that TensorFlow Serving gives.

        Args:
            request: the model and its inputs.
            deadline: `time.monotonic()` after which the answer is of no use, or None.
            is_wanted: tells whether the caller still waits for the answer.
            interrupt: whether a run that has begun is ended at the deadline, unless it also answers others.
        """
        response = PredictResponse()
        spec = _spec_of(request)
        with self.admission.enter(deadline), self.registry.use(spec) as (servable, session):
            if not is_wanted():
                raise ServingError(grpc.StatusCode.CANCELLED, "The caller has gone")
            name, signature = find_signature(session.signatures, spec.signature_name)
            inputs = read_inputs(signature, request.inputs, self._options, session.max_pixels)
            wanted = choose_outputs(signature, request.output_filter)
            run = session.run if self._scheduler is None else functools.partial(self._scheduler.run, session)
            outputs = run(name, inputs, wanted, deadline, interrupt)
            for output in wanted:
                response.outputs[output].CopyFrom(
                    to_proto(outputs[output], self._options.enable_serialization_as_tensor_content)
                )
        response.model_spec.name = servable.model
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = name
        if self._request_log is not None:
            # The outputs are left out: a class map has a byte for each pixel.
            self._request_log.record(request, PredictResponse(model_spec=response.model_spec))
        return response

    def model_metadata(self, request: Any) -> GetModelMetadataResponse:
        """Returns a version's signatures, as a `GetModelMetadataRequest` asks. Raises ServingError."""
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
        """Returns the states of the versions that a `GetModelStatusRequest` names. Raises ServingError."""
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
        """Serves what a `ModelServerConfig` says instead of what the last one said, all of it or nothing.

        Returns once every model that is new, or that an earlier call still waits for, serves or cannot. An empty
        configuration changes nothing. Raises ServingError if the configuration is refused, or such a model did not
        become available (UNKNOWN).
        """
        if config.WhichOneof("config") is not None:
            self.registry.reload(check_config(config))

    def close(self) -> None:
        """Frees every model. No request may be in progress."""
        self.registry.close()


def _spec_of(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return request.model_spec
