"""One version of one model on its way from a folder to its last request: its state and its users."""

from __future__ import annotations

import dataclasses

import grpc
from tensorflow_serving.apis import get_model_status_pb2

from serving.server.runner import Runner
from serving.server.session import SavedModelSession

State = get_model_status_pb2.ModelVersionStatus.State
START = State.START
LOADING = State.LOADING
AVAILABLE = State.AVAILABLE
UNLOADING = State.UNLOADING
END = State.END


@dataclasses.dataclass(eq=False)
class Servable:
    """A version of a model. The manager's lock guards every attribute that changes.

    Attributes:
        model: the model's name.
        version: its number.
        directory: the SavedModel.
        state: as TensorFlow Serving names it.
        error: status code and text of the last attempt to load, where that failed.
        session: the loaded model, from AVAILABLE until it is closed.
        runner: what runs requests: the session, or batching around it.
        users: requests that are using it.
        attempts: loads that failed.
        retry_at: `time.monotonic()` of the next attempt, where one is due.
        fingerprint: the files that failed to load.
    """

    model: str
    version: int
    directory: str
    state: int = START
    error: tuple[grpc.StatusCode, str] | None = None
    session: SavedModelSession | None = None
    runner: Runner | None = None
    users: int = 0
    attempts: int = 0
    retry_at: float | None = None
    fingerprint: tuple[tuple[str, int, int], ...] = ()

    @property
    def broken(self) -> bool:
        """Whether the last attempt to load it failed; another may be due."""
        return self.error is not None

    def __str__(self) -> str:
        return f"{self.model} version {self.version}"


def version_status(servable: Servable) -> get_model_status_pb2.ModelVersionStatus:
    """Returns what GetModelStatus says of a version."""
    code, message = servable.error or (grpc.StatusCode.OK, "")
    status = get_model_status_pb2.ModelVersionStatus(version=servable.version, state=servable.state)
    # Setting a field to its default also says that there is a status, which JSON shows only then.
    status.status.error_code = code.value[0]
    status.status.error_message = message
    return status
