"""The connection to a Kubeflow Pipelines API server: address, credentials, health check and error messages.

The health check comes before the kfp client is made. That client has no time limit, repeats a refused health check for
half a minute, and reads a login page as an empty answer.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import certifi
import urllib3

from components.errors import SegpipeError

HEALTH_PATH = "/apis/v2beta1/healthz"
# The first version that passes the id of the run to its tasks (kubeflow/pipelines, pull request 11599).
OLDEST_SERVER = "2.5"

_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Connection:
    """How to reach an API server, and as which user.

    Attributes:
        host: address of the API server or of the page in front of it, such as http://localhost:8888.
        namespace: namespace of the user's profile, in multi-user installations.
        token: bearer token.
        cookie: cookie, such as `oauth2_proxy_kubeflow=...`.
        ca_file: PEM file of the CA certificates that sign the server's; empty for the public ones.
    """

    host: str
    namespace: str = ""
    token: str = dataclasses.field(default="", repr=False)
    cookie: str = dataclasses.field(default="", repr=False)
    ca_file: str = ""


def check_health(connection: Connection, host: str) -> None:
    """Requests the server's health once, without redirections. Raises SegpipeError if it is not healthy."""
    headers = {}
    if connection.token:
        headers["Authorization"] = f"Bearer {connection.token}"
    if connection.cookie:
        headers["Cookie"] = connection.cookie
    try:
        # The same certificates as the kfp client's.
        pool = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=connection.ca_file or certifi.where())
        answer = pool.request(
            "GET", host + HEALTH_PATH, headers=headers, redirect=False, retries=False, timeout=_SECONDS
        )
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise SegpipeError(unreachable(host, error)) from None
    if answer.status != 200:
        raise SegpipeError(refusal(connection, answer.status, message(answer.data.decode(errors="replace"))))
    try:
        json.loads(answer.data)
    except ValueError:
        raise SegpipeError(
            f"{host}: found no JSON at {HEALTH_PATH}, expected Kubeflow Pipelines' API; "
            "name the address of ml-pipeline or of its page, such as https://kubeflow.example.com/pipeline"
        ) from None


def unreachable(host: str, error: Exception) -> str:
    """Returns the message for a server that does not answer."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        return f"{host}: its certificate is not signed by a known authority; pass the CA certificate with --ca FILE"
    return (
        f"{host}: cannot be reached ({text}); expected the API server of Kubeflow Pipelines. Check the address, "
        "or open a tunnel first: kubectl port-forward -n kubeflow svc/ml-pipeline 8888:8888"
    )


def refusal(connection: Connection, status: int, text: str) -> str:
    """Returns the message for an HTTP status other than 200."""
    said = f" ({text})" if text else ""
    host = connection.host
    if status in (301, 302, 303, 307, 308):
        return (
            f"{host}: redirects to a login page{said}; expected credentials. Pass --token-file FILE, "
            "or set SEGPIPE_KUBEFLOW_COOKIE to the cookie of a signed-in browser"
        )
    if status == 401:
        found = (
            "the token or cookie was not accepted"
            if connection.token or connection.cookie
            else "no credentials were sent"
        )
        return (
            f"{host}: answered 401, {found}{said}. Pass a valid one with --token-file FILE, SEGPIPE_KUBEFLOW_TOKEN "
            "or SEGPIPE_KUBEFLOW_COOKIE"
        )
    if status == 403:
        where = f"namespace {connection.namespace!r}" if connection.namespace else "this server without a namespace"
        return (
            f"{host}: answered 403, not allowed in {where}{said}. Name a namespace of yours with --namespace, "
            "or ask for the role kubeflow-edit there"
        )
    if status == 404:
        return (
            f"{host}: answered 404{said}; expected Kubeflow Pipelines' v2beta1 API. Check the address "
            "(in front of a whole Kubeflow, it ends in /pipeline) and that the server is version "
            f"{OLDEST_SERVER} or later"
        )
    return f"{host}: answered {status}{said}"


def message(body: Any) -> str:
    """Returns the text of an error, in the gateway's form, the upload server's form, or as plain text."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        content = json.loads(text)
        return str(content.get("message") or content.get("error_message") or content.get("error") or "")
    except (ValueError, AttributeError):
        # A page of HTML is no message.
        return "" if "<" in text else text.strip()[:200]
