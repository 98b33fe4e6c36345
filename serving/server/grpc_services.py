"""The gRPC face of the server: PredictionService and ModelService on tensorflow-serving-api's stubs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.server.core import ServerCore
from serving.server.errors import ServingError, invalid_argument, status_of
from serving.server.monitoring import Metrics

_LOG = logging.getLogger("segpipe.serving")
_Answer = TypeVar("_Answer")
# A status travels in a header, of which gRPC takes 8 KiB, each byte that is no ASCII as three. A message may quote what
# the caller sent.
_LONGEST_MESSAGE = 2000
_NO_EXAMPLES = (
    "{} takes tf.Example protos and a classification or regression signature; a segmentation model has none. "
    "Call Predict instead"
)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; what needs tf.Examples is UNIMPLEMENTED."""

    def __init__(self, core: ServerCore, metrics: Metrics) -> None:
        """Answers with a core and counts predictions."""
        self._core = core
        self._metrics = metrics

    def Predict(self, request: Any, context: grpc.ServicerContext) -> predict_pb2.PredictResponse:
        """Runs a model."""
        began = time.monotonic()
        remaining = context.time_remaining()
        # Without a deadline, gRPC says None in some versions and infinity in others.
        deadline = began + remaining if remaining is not None and remaining < threading.TIMEOUT_MAX else None

        def note(code: grpc.StatusCode) -> None:
            self._metrics.request(request.model_spec.name, "Predict", "GRPC", code, time.monotonic() - began)

        return _answer(context, lambda: self._core.predict(request, deadline, context.is_active), note)

    def GetModelMetadata(
        self, request: Any, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns a version's signatures."""
        return _answer(context, lambda: self._core.model_metadata(request))

    def Classify(self, request: Any, context: grpc.ServicerContext) -> None:
        """Refuses."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, _NO_EXAMPLES.format("Classify"))

    def Regress(self, request: Any, context: grpc.ServicerContext) -> None:
        """Refuses."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, _NO_EXAMPLES.format("Regress"))

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> None:
        """Refuses."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, _NO_EXAMPLES.format("MultiInference"))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """The states of models, and which are served."""

    def __init__(self, core: ServerCore) -> None:
        """Answers with a core."""
        self._core = core

    def GetModelStatus(
        self, request: Any, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of a model's versions."""
        return _answer(context, lambda: self._core.model_status(request))

    def HandleReloadConfigRequest(
        self, request: Any, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves what a new configuration says."""

        def reload() -> model_management_pb2.ReloadConfigResponse:
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid_argument(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                    "Only ModelConfigList is currently supported"
                )
            self._core.reload(request.config)
            return model_management_pb2.ReloadConfigResponse()

        return _answer(context, reload)


def _answer(
    context: grpc.ServicerContext,
    call: Callable[[], _Answer],
    note: Callable[[grpc.StatusCode], None] = lambda code: None,
) -> _Answer:
    """Returns what a call returns; ends the RPC with its status where it fails. `note` is told the status."""
    try:
        answer = call()
    except ServingError as error:
        code, message = error.code, error.message
    except Exception as error:
        _LOG.exception("a call failed in a way that the server did not expect")
        code, message = grpc.StatusCode.INTERNAL, status_of(error)[1]
    else:
        note(grpc.StatusCode.OK)
        return answer
    note(code)
    context.abort(code, message.encode()[:_LONGEST_MESSAGE].decode(errors="ignore"))
    raise AssertionError("abort always raises")
