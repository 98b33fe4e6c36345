"""A model server without models, with TensorFlow Serving's rules for configurations and labels.

What it imitates stands in tensorflow_serving/model_servers at 9d981c5:

- server_core.cc, `ReloadConfig`: labels are checked before models are added, so a refused configuration adds none.
- server_core.cc, `UpdateModelVersionLabelMap`: FAILED_PRECONDITION for a label on an unavailable version, unless
  --allow_version_labels_for_unavailable_models is set and the label does not lead to another version already.
- server_core.cc, `GetModelVersionForLabel`: INVALID_ARGUMENT for an unknown label.
- get_model_status_impl.cc: NOT_FOUND for an unknown model, otherwise every version that was ever seen, with its error.
- server.cc, `PollFilesystemAndReloadConfig`: a file is read again and again, and a refusal is only logged.

core/basic_manager.cc has NOT_FOUND for a version that is not loaded. The tests below tests/serving/server run `segpipe
release` against the local server, with real models.
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
    """Serves on its own port.

    `on_disk` and `broken` are the versions that exist, and those that do not load; `is_lost` tells whether a
    configuration that is sent never arrives.
    """

    def __init__(self, on_disk, broken=(), credentials=None, allows_labels_for_unavailable=False):
        self.on_disk = set(on_disk)
        self.broken = set(broken)
        self.is_lost = lambda config: False
        self._allows_labels_for_unavailable = allows_labels_for_unavailable
        self.labels = {}
        self.states = {}
        self.configs = []
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._follower = None
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self):
        self._stopped.set()
        if self._follower is not None:
            self._follower.join()
        self._server.stop(None).wait()

    def start_with(self, text):
        """Loads the first configuration, whose versions are all available afterwards, and then its labels."""
        self._load(text_format.Parse(text, ModelServerConfig()), is_first=True)

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

    def _load(self, config, is_first=False):
        (model,) = config.model_config_list.config
        with self._lock:
            self.configs.append(config)
            for label, version in model.version_labels.items():
                is_allowed = self._allows_labels_for_unavailable and self.labels.get(label, version) == version
                if not (is_first or is_allowed) and self.states.get(version, ("", ""))[0] != "AVAILABLE":
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
