"""The Python client of a served model: `from serving.client import Client`. It needs neither TensorFlow nor TFX."""

from serving.client.aio import AsyncClient
from serving.client.client import Client
from serving.client.errors import (
    DeadlineError,
    MessageTooLargeError,
    ModelNotFoundError,
    RequestRefusedError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from serving.client.results import Description, InstanceSegmentation, Refused, Result, Segmentation, VersionStatus
from serving.client.retries import Retries
from serving.client.settings import ClientSettings, Tls

__all__ = [
    "AsyncClient",
    "Client",
    "ClientSettings",
    "DeadlineError",
    "Description",
    "InstanceSegmentation",
    "MessageTooLargeError",
    "ModelNotFoundError",
    "Refused",
    "RequestRefusedError",
    "Result",
    "Retries",
    "Segmentation",
    "ServerBusyError",
    "ServerError",
    "ServerUnavailableError",
    "Tls",
    "VersionStatus",
]
