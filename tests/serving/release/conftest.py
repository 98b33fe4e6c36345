"""Model servers and clusters on real sockets, stopped after the test."""

import pytest
from release_commands import UNLABELLED, config_text
from toy_cluster import ToyCluster
from toy_model_server import ToyModelServer


@pytest.fixture
def start():
    """Starts model servers and clusters, and stops them after the test."""
    started = []

    def start_one(what, *arguments, **options):
        started.append(what(*arguments, **options))
        return started[-1]

    yield start_one
    for one in started:
        one.stop()


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "models.config"
    file.write_text(UNLABELLED)
    return file


@pytest.fixture
def following(start, config_file):
    """Two servers that follow one file, on which version 13 is the newest."""
    servers = [start(ToyModelServer, {11, 12, 13}) for _ in range(2)]
    for server in servers:
        server.follow(config_file.read_text)
    return servers


@pytest.fixture
def cluster(start, tmp_path, monkeypatch):
    """A cluster whose ConfigMap has version 12 stable, as the current context."""
    cluster = start(ToyCluster, "segpipe", "segpipe-models", {"models.config": config_text([12], {"stable": 12})})
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.kubeconfig())
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    return cluster
