"""What the server can be asked, whatever the protocol: predictions, metadata, states, a new configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.server.admission import Admission
from serving.server.errors import ServingError, invalid_argument, not_found
from serving.server.manager import ManagerOptions, ModelManager
from serving.server.model_config import check_config
from serving.server.registry import ModelRegistry
from serving.server.requests import RequestLimits, choose_outputs, find_signature, read_inputs
from serving.server.runner import Runner
from serving.server.servable import Servable, version_status
from serving.server.tensors import to_proto

_SIGNATURE_DEF = "signature_def"


@dataclasses.dataclass(frozen=True)
class CoreOptions:
    """How requests are taken.

    Attributes:
        max_running: requests that run at once.
        max_waiting: requests that wait; the next one is refused.
        limits: of one request.
        allow_version_labels_for_unavailable_models: whether a new label may point to a version that does not serve.
        enable_serialization_as_tensor_content: whether numbers in answers travel as raw bytes.
    """

    max_running: int = 2
    max_waiting: int = 64
    limits: RequestLimits = dataclasses.field(default_factory=RequestLimits)
    allow_version_labels_for_unavailable_models: bool = False
    enable_serialization_as_tensor_content: bool = False


class ServerCore:
    """Answers calls with the models that are loaded; gRPC and REST are thin layers over it.

    Attributes:
        registry: the models, versions and labels there are.
    """

    def __init__(
        self,
        options: CoreOptions,
        manager_options: ManagerOptions,
        wrap: Callable[[Runner], Runner] = lambda runner: runner,
        on_change: Callable[[ServerCore], None] = lambda core: None,
    ) -> None:
        """Starts without models; `reload` brings them.

        Args:
            options: how requests are taken.
            manager_options: how versions are found and loaded.
            wrap: puts batching around a loaded version, or nothing.
            on_change: is told of every change of a version's state, and at times without one.
        """
        self._options = options
        self._admission = Admission(options.max_running, options.max_waiting)
        self.registry = ModelRegistry(options.allow_version_labels_for_unavailable_models)
        self._manager = ModelManager(self.registry, manager_options, options.limits, wrap, lambda: on_change(self))

    def predict(
        self,
        request: predict_pb2.PredictRequest,
        deadline: float | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
        interrupt: bool = False,
    ) -> predict_pb2.PredictResponse:
        """Runs a model.

        Args:
            request: the model and its inputs.
            deadline: `time.monotonic()` after which the answer is of no use, or None.
            is_wanted: tells whether somebody still waits for the answer.
            interrupt: whether a run that has begun is ended at the deadline, unless it also answers others.

        Raises:
            ServingError: with the status code and text that TensorFlow Serving gives.
        """
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        with self._admission.enter(deadline), self.registry.use(request.model_spec) as servable:
            if not is_wanted():
                raise ServingError(grpc.StatusCode.CANCELLED, "The caller has gone")
            return self._run(servable, request, deadline, interrupt)

    def model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns a version's signatures. Raises ServingError."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise invalid_argument(f"Metadata field {field} is not supported")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self.registry.use(request.model_spec) as servable:
            for name, signature in _signatures(servable).items():
                signatures.signature_def[name].CopyFrom(signature)
            response.model_spec.name = servable.model
            response.model_spec.version.value = servable.version
        response.metadata[_SIGNATURE_DEF].Pack(signatures)
        return response

    def model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of a model's versions. Raises ServingError."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        spec = request.model_spec
        versions = self.registry.versions(spec.name)
        if spec.HasField("version"):
            versions = [servable for servable in versions if servable.version == spec.version.value]
            if not versions:
                raise not_found(f"Could not find version {spec.version.value} of model {spec.name}")
        if not versions:
            raise not_found(f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.extend(version_status(servable) for servable in versions)
        return response

    def reload(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Serves what a configuration says instead of what the last one said, all of it or nothing.

        Returns once every model that is new, or that an earlier call still waits for, serves or cannot. An empty
        configuration changes nothing.

        Raises:
            ServingError: the configuration is refused, or such a model did not become available (UNKNOWN).
        """
        if config.WhichOneof("config") is None:
            return
        unsettled = self.registry.configure(check_config(config))
        self._manager.poll_now()
        self.registry.wait_until_settled(unsettled)
        missing = [name for name in unsettled if not self.registry.is_available(name)]
        if missing:
            reasons = ", ".join(self._reason(name) for name in missing)
            raise ServingError(
                grpc.StatusCode.UNKNOWN, f"{len(missing)} model(s) did not become available: {{{reasons}}}"
            )

    def refuse_predictions(self) -> None:
        """Answers UNAVAILABLE to predictions from now on; those in progress go on."""
        self._admission.close()

    def wait_until_idle(self, grace: float) -> None:
        """Waits up to `grace` seconds for the predictions in progress, once more are refused."""
        self._admission.wait_until_empty(grace)

    def close(self) -> None:
        """Frees every model. No request may be in progress."""
        self._manager.close()

    def _run(
        self, servable: Servable, request: predict_pb2.PredictRequest, deadline: float | None, interrupt: bool
    ) -> predict_pb2.PredictResponse:
        name, signature = find_signature(_signatures(servable), request.model_spec.signature_name)
        inputs = read_inputs(signature, request.inputs, self._options.limits)
        wanted = choose_outputs(signature, request.output_filter)
        assert servable.runner is not None
        outputs = servable.runner.run(name, inputs, wanted, deadline, interrupt)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = servable.model
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = name
        for output in wanted:
            proto = to_proto(outputs[output], self._options.enable_serialization_as_tensor_content)
            response.outputs[output].CopyFrom(proto)
        return response

    def _reason(self, model: str) -> str:
        versions = self.registry.versions(model)
        if not versions:
            path = self.registry.models[model].base_path if model in self.registry.models else "its base path"
            return f"{{name: {model}}} no version found in {path}"
        parts = (
            f"{{name: {model} version: {servable.version}}} due to error: {servable.error[1]}"
            for servable in versions
            if servable.error is not None
        )
        return ", ".join(parts)


def _signatures(servable: Servable) -> dict[str, Any]:
    """Returns the signatures of a version that the caller holds."""
    assert servable.session is not None
    return servable.session.signatures
