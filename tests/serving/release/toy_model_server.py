"""A model server that keeps TensorFlow Serving's rules on configurations and labels, without any model.

The rules are those of `ServerCore::ReloadConfig` and `UpdateModelVersionLabelMap` in TensorFlow Serving 2.16: labels
are checked first, and a configuration that moves one to a version that is not loaded is refused whole.
"""

import threading
from concurrent import futures

import grpc
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

_POLL_SECONDS = 0.02
_UNKNOWN = 2


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class ToyModelServer(
    model_service_pb2_grpc.ModelServiceServicer, prediction_service_pb2_grpc.PredictionServiceServicer
):
    """Serves on a port of its own.

    `on_disk` and `broken` are the versions that exist, and those that do not load; `is_lost` tells whether a
    configuration that is sent never arrives.
    """

    def __init__(self, on_disk, broken=()):
        self.on_disk = set(on_disk)
        self.broken = set(broken)
        self.is_lost = lambda config: False
        self.labels = {}
        self.states = {}
        self.configs = []
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._follower = None
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self):
        self._stopped.set()
        if self._follower is not None:
            self._follower.join()
        self._server.stop(None).wait()

    def start_with(self, text):
        """Loads the first configuration as a server does that allows new labels for versions still to come."""
        self._load(text_format.Parse(text, ModelServerConfig()), first=True)

    def follow(self, read_text):
        """Polls a file or a ConfigMap, as `--model_config_file_poll_wait_seconds` does."""
        self.start_with(read_text())
        self._follower = threading.Thread(target=self._poll, args=(read_text,))
        self._follower.start()

    def versions(self, state="AVAILABLE"):
        return sorted(version for version, (found, _) in self.states.items() if found == state)

    def _poll(self, read_text):
        while not self._stopped.wait(_POLL_SECONDS):
            try:
                self._load(text_format.Parse(read_text(), ModelServerConfig()))
            except Refused:
                continue

    def _load(self, config, first=False):
        (model,) = config.model_config_list.config
        with self._lock:
            self.configs.append(config)
            for version in model.version_labels.values():
                if not first and self.states.get(version, ("", ""))[0] != "AVAILABLE":
                    raise Refused(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference",
                    )
            self.labels = dict(model.version_labels)
            aspired = set(model.model_version_policy.specific.versions) or {max(self.on_disk)}
            for version in aspired & self.on_disk:
                error = "Could not find variables" if version in self.broken else ""
                self.states[version] = ("END", error) if error else ("AVAILABLE", "")
            for version in set(self.states) - aspired:
                self.states[version] = ("END", "")

    def GetModelStatus(self, request, context):
        answer = get_model_status_pb2.GetModelStatusResponse()
        with self._lock:
            states = sorted(self.states.items())
        if request.model_spec.name != "fcn8":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {request.model_spec.name}")
        for version, (state, error) in states:
            status = answer.model_version_status.add(version=version, state=state)
            status.status.error_message = error
            status.status.error_code = _UNKNOWN if error else 0
        return answer

    def GetModelMetadata(self, request, context):
        label = request.model_spec.version_label
        with self._lock:
            version = self.labels.get(label)
            state, _ = self.states.get(version, ("", ""))
        if version is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        if state != "AVAILABLE":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific(fcn8, {version})")
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.version.value = version
        return answer

    def HandleReloadConfigRequest(self, request, context):
        if self.is_lost(request.config):
            context.abort(grpc.StatusCode.UNAVAILABLE, "the line is dead")
        try:
            self._load(request.config)
        except Refused as refusal:
            context.abort(refusal.code, str(refusal))
        return model_management_pb2.ReloadConfigResponse()
