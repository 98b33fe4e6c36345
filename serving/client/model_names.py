"""Finds the name of a server's only model, if the user gave none.

TensorFlow Serving has no call that lists its models (tensorflow_serving/apis/{model,prediction}_service.proto and
model_servers/http_rest_api_handler.cc at 9d981c5). GetModelStatus without a name is NOT_FOUND, and REST answers
/v1/models with "Missing model name in request". Its metrics count requests by model name, so they list
a model once it has answered a request, such as a probe's. `segpipe serve` lists its models in GetModelStatus.
"""

from __future__ import annotations

import re
from typing import Any

import urllib3

from components.errors import UsageError
from serving.client.client import Client
from serving.client.errors import ModelNotFoundError
from serving.client.protocol import METRICS_PATH
from serving.client.settings import ClientSettings

# The usual port: tensorflow_serving/tools/docker/Dockerfile.
_REST_PORT = 8501
_METRICS_TIMEOUT = 2.0  # seconds
# RecordModelRequestCount in servables/tensorflow/util.cc, written by util/prometheus_exporter.cc.
_ANSWERED = re.compile(r':tensorflow:serving:request_count\{model_name="((?:[^"\\]|\\.)+)",status="OK"\}')
_TARGET = re.compile(r"(?:dns:///)?(?P<host>\[[^\]]+\]|[^:/]+):\d+")


def only_model(target: str, **settings: Any) -> str:
    """Returns "default" if the server has a model of this name, else the name of its only model.

    Args:
        target: the server's gRPC address, as for `Client`.
        settings: arguments of `Client`, except the model.

    Raises:
        UsageError: the server has several models or none, or does not list them.
        ServerError: the server cannot be reached.
    """
    default = ClientSettings(target, **settings).model
    settings = {**settings, "version": None, "label": None}
    with Client(target, **settings) as client:
        try:
            client.status()
            return default
        except ModelNotFoundError as error:
            names = error.served_models
    if names is None:
        names = [name for name in _names_in_metrics(target) if _is_served(target, name, settings)]
    if len(names) == 1:
        return names[0]
    if names:
        raise UsageError(
            f"server {target}: found the models {', '.join(names)}, expected --model-name with one of them"
        )
    raise UsageError(
        f"server {target}: found no model {default}, and the server does not list others: TensorFlow Serving has "
        "no call for that. Expected --model-name NAME. The name is in the server's --model_name or "
        "--model_config_file, on Kubernetes in the ConfigMap: kubectl -n segpipe get configmap segpipe-models -o yaml"
    )


def _is_served(target: str, name: str, settings: dict[str, Any]) -> bool:
    try:
        with Client(target, model=name, **settings) as client:
            client.status()
    except ModelNotFoundError:
        return False
    return True


def _names_in_metrics(target: str) -> list[str]:
    """Returns the model names in TensorFlow Serving's metrics; none without metrics at the usual REST port."""
    match = _TARGET.fullmatch(target)
    if match is None:
        return []
    address = f"http://{match['host']}:{_REST_PORT}{METRICS_PATH}"
    try:
        with urllib3.PoolManager() as pool:
            page = pool.request("GET", address, timeout=_METRICS_TIMEOUT, retries=False).data
    except urllib3.exceptions.HTTPError:
        return []
    found = _ANSWERED.findall(page.decode(errors="replace"))
    return sorted({re.sub(r"\\(.)", r"\1", name) for name in found})
