"""Data sets, real and synthetic, and an S3 server for the tests of several folders."""

import os
import uuid
from pathlib import Path

import object_store_server
import pytest

from components import object_store
from components.dataset import synthetic

_ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def camvid() -> str:
    """The folder of the real CamVid data set; skips the test if it is not available."""
    folder = Path(os.environ.get("SEGPIPE_CAMVID", _ROOT / ".." / "shared" / "camvid")).resolve()
    if not (folder / "train").is_dir():
        pytest.skip(f"real CamVid is not at {folder}; set SEGPIPE_CAMVID to its folder")
    return str(folder)


@pytest.fixture
def street_scenes(tmp_path) -> str:
    """A small synthetic data set for each test: 12 training and 4 validation pairs, 48x64."""
    folder = str(tmp_path / "street_scenes")
    synthetic.make(folder, pairs={"train": 12, "val": 4}, size=(48, 64))
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """The endpoint of a real S3 server; skips the test if none can be started."""
    with object_store_server.running(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


@pytest.fixture
def s3_proxy(s3_server, monkeypatch, tmp_path):
    """A proxy in front of the S3 server; `s3://` paths use it, and local copies are in a temporary folder."""
    proxy = object_store_server.Proxy(s3_server)
    for name, value in {**object_store_server.KEYS, "AWS_ENDPOINT_URL_S3": proxy.endpoint}.items():
        monkeypatch.setenv(name, os.environ.get(name, value) if name in object_store_server.KEYS else value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    object_store._open.cache_clear()
    yield proxy
    proxy.close()
    object_store._open.cache_clear()


@pytest.fixture
def s3(s3_server, s3_proxy) -> str:
    """The address of an empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    object_store_server.make_bucket(s3_server, name)
    return f"s3://{name}"
