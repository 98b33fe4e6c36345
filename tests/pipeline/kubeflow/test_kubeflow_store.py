"""Metadata stores: MariaDB opened by several tasks at once, a service over TLS, and refused files."""

import os
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import grpc
import mariadb
import pytest
from ml_metadata import errors
from ml_metadata.proto import metadata_store_service_pb2, metadata_store_service_pb2_grpc
from self_signed import issue

from components.errors import UsageError
from pipeline.storage import metadata
from pipeline.storage.metadata import connection_config, network_file_system
from pipeline.storage.settings import MetadataSettings
from pipeline.storage.store import Store
from pipeline.storage.workdir import Workdir

_OPEN = """
import sys
from pipeline.storage.settings import MetadataSettings
from pipeline.storage.metadata import connection_config
from pipeline.storage.store import Store

settings = MetadataSettings(kind="mysql", host="127.0.0.1", port=int(sys.argv[1]), user=sys.argv[2])
sys.stdin.read(1)
print(Store(connection_config(settings, "")).run_ids())
"""


def test_parallel_tasks_initialise_an_empty_database(tmp_path):
    with mariadb.running(tmp_path) as port:
        command = [sys.executable, "-c", _OPEN, str(port), mariadb.USER]
        environment = {**os.environ, "SEGPIPE_METADATA_PASSWORD": mariadb.PASSWORD}
        pipe = subprocess.PIPE
        tasks = [
            subprocess.Popen(
                command, env=environment, cwd=Path(__file__).parents[3], stdin=pipe, stdout=pipe, text=True
            )
            for _ in range(3)
        ]
        for task in tasks:
            task.stdin.write("\n")
            task.stdin.flush()
        answers = [task.communicate()[0].strip() for task in tasks]

    assert answers == ["[]"] * 3


class _Service(metadata_store_service_pb2_grpc.MetadataStoreServiceServicer):
    """An ML Metadata service without runs, to test the client's TLS."""

    def GetContextsByType(self, request, context):
        return metadata_store_service_pb2.GetContextsByTypeResponse()


@pytest.fixture
def service(tmp_path):
    """The port of a service on localhost that asks clients for a certificate, and its certificate and key."""
    cert, key = issue(tmp_path / "service")
    server = grpc.server(futures.ThreadPoolExecutor())
    metadata_store_service_pb2_grpc.add_MetadataStoreServiceServicer_to_server(_Service(), server)
    pair = (key.read_bytes(), cert.read_bytes())
    port = server.add_secure_port(
        "localhost:0", grpc.ssl_server_credentials([pair], cert.read_bytes(), require_client_auth=True)
    )
    server.start()
    yield port, str(cert), str(key)
    server.stop(None)


def test_a_service_is_reached_over_tls_with_the_certificates_that_the_settings_name(service, tmp_path):
    port, cert, key = service
    other = str(issue(tmp_path / "other")[0])

    def run_ids(**files):
        settings = MetadataSettings(kind="grpc", host="localhost", port=port, **files)
        return Store(connection_config(settings, "")).run_ids()

    assert run_ids(tls_ca=cert, tls_cert=cert, tls_key=key) == []
    for files in ({}, {"tls_ca": cert}, {"tls_ca": other, "tls_cert": cert, "tls_key": key}):
        with pytest.raises(errors.UnavailableError):
            run_ids(**files)
    with pytest.raises(UsageError, match=r"no-such.pem cannot be read \(No such file"):
        run_ids(tls_ca="no-such.pem")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "sqlite", "tls_ca": "ca.pem"}, "tls_ca with kind=sqlite, expected kind=grpc"),
        ({"kind": "mysql", "host": "db", "tls_ca": "ca.pem"}, "cannot verify a server's certificate"),
        ({"kind": "grpc", "host": "db", "tls_ca": "ca.pem", "tls_cert": "me.pem"}, "tls_ca alone or all three"),
        ({"kind": "grpc", "host": "db", "tls_cert": "me.pem", "tls_key": "me.key"}, "tls_ca alone or all three"),
    ],
)
def test_certificates_that_would_not_protect_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MetadataSettings(**settings)


_MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /mnt/shared\\040models nfs4 rw 0 0
tmpfs /mnt/shared\\040models/scratch tmpfs rw 0 0
bucket /mnt/bucket fuse.gcsfuse rw 0 0
bucket /mnt/other fuse.mount-s3 rw 0 0
bucket /mnt/plain fuse rw 0 0
/dev/sdb1 /mnt/disk fuseblk rw 0 0
fuse-overlayfs /mnt/overlay fuse.fuse-overlayfs rw 0 0
host /mnt/9p 9p rw 0 0
host /mnt/virtiofs virtiofs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/metadata.sqlite", ""),
        ("/mnt/shared models/segpipe/metadata.sqlite", "nfs4"),
        ("/mnt/shared models/scratch/metadata.sqlite", ""),
        ("/mnt/shared models 2/metadata.sqlite", ""),
        ("/mnt/bucket/metadata.sqlite", "fuse.gcsfuse"),
        ("/mnt/other/metadata.sqlite", "fuse.mount-s3"),
        ("/mnt/plain/metadata.sqlite", "fuse"),
        ("/mnt/disk/metadata.sqlite", ""),
        ("/mnt/overlay/metadata.sqlite", ""),
        ("/mnt/9p/metadata.sqlite", "9p"),
        ("/mnt/virtiofs/metadata.sqlite", "virtiofs"),
    ],
)
def test_a_network_volume_is_recognised(tmp_path, path, kind):
    (tmp_path / "mounts").write_text(_MOUNTS)

    assert network_file_system(path, str(tmp_path / "mounts")) == kind


@pytest.mark.parametrize("kind", ["9p", "virtiofs"])
def test_a_sandbox_may_use_the_files_of_its_host_if_it_has_no_disk(tmp_path, kind):
    (tmp_path / "mounts").write_text(f"host / {kind} rw 0 0\nhost /work {kind} rw 0 0\nbucket /mnt fuse rw 0 0\n")

    found = [network_file_system(path, str(tmp_path / "mounts")) for path in ("/srv/a", "/work/a", "/mnt/a")]
    assert found == ["", "", "fuse"]


def test_several_pods_share_no_sqlite_file_on_a_network_volume(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "network_file_system", lambda path: "nfs4")

    with pytest.raises(UsageError, match=r"SQLite file on a network volume \(nfs4\).*kind=mysql"):
        Workdir(str(tmp_path), shared=True).create()
    Workdir(str(tmp_path), shared=True, store=MetadataSettings(kind="mysql", host="db")).create()
    Workdir(str(tmp_path)).create()
