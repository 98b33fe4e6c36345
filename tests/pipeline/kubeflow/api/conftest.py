"""Fixtures for the tests of Kubeflow's runs: a server on a socket and a compiled pipeline."""

import pytest
from compiled_package import write_package
from kubeflow_server import KubeflowServer


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path):
    """Hides the user's kfp settings file and segpipe secrets."""
    from kfp.client import Client

    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    for name in ("KF_PIPELINES_ENDPOINT", "SEGPIPE_KUBEFLOW_TOKEN", "SEGPIPE_KUBEFLOW_COOKIE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """A single-user server; the test fails if a request does not fit the API."""
    with KubeflowServer() as running:
        yield running
    assert running.violations == []


@pytest.fixture
def package(tmp_path):
    """The path of a compiled pipeline."""
    return write_package(tmp_path / "pipeline.yaml")
