"""Turns the settings of a metadata store into ML Metadata's connection."""

from __future__ import annotations

import os
import re
from typing import Any

from ml_metadata.proto import metadata_store_pb2

from components.errors import UsageError
from pipeline.storage.settings import MetadataSettings

# File system types of Linux. FUSE counts as a network, except overlays. A local NTFS disk has the type fuseblk.
_NETWORK_FILE_SYSTEM = re.compile(
    r"nfs4?|cifs|smb3|afs|beegfs|ceph|glusterfs|gpfs|lustre|fuse(\.(?!fuse-overlayfs$).+)?|9p|virtiofs"
)
# Sandboxes and virtual machines reach their host's files by these, in which locks of one do not hold in another.
_HOST_FILE_SYSTEMS = ("9p", "virtiofs")
_PORTS = {"mysql": 3306, "postgresql": 5432, "grpc": 8080}


def connection_config(settings: MetadataSettings, sqlite_path: str) -> Any:
    """Returns ML Metadata's `ConnectionConfig` or, for a service, its `MetadataStoreClientConfig`.

    The password of a database is read from the environment; `sqlite_path` is the file of an SQLite store.
    """
    if settings.kind == "sqlite":
        sqlite = metadata_store_pb2.SqliteMetadataSourceConfig(
            filename_uri=sqlite_path,
            connection_mode=metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE,
        )
        return metadata_store_pb2.ConnectionConfig(sqlite=sqlite)
    port = settings.port or _PORTS[settings.kind]
    if settings.kind == "grpc":
        return metadata_store_pb2.MetadataStoreClientConfig(host=settings.host, port=port, ssl_config=_tls(settings))
    password = os.environ.get(settings.password_env, "")
    if settings.kind == "mysql":
        return metadata_store_pb2.ConnectionConfig(
            mysql=metadata_store_pb2.MySQLDatabaseConfig(
                host=settings.host, port=port, database=settings.database, user=settings.user, password=password
            )
        )
    return metadata_store_pb2.ConnectionConfig(
        postgresql=metadata_store_pb2.PostgreSQLDatabaseConfig(
            host=settings.host, port=str(port), dbname=settings.database, user=settings.user, password=password
        )
    )


def network_file_system(path: str, mounts: str = "/proc/self/mounts") -> str:
    """Returns the type of a path's file system if it is a network file system, else an empty string.

    The path need not exist. `mounts` is a table of mounts in the format of fstab(5). A sandbox whose root is on its
    host's files has no other disk, so there they count as local.
    """
    where, kinds = os.path.realpath(path), {"/": ""}
    with open(mounts) as table:
        for line in table:
            # Spaces in a mount point are written as octal escapes.
            point, kind = (field.encode().decode("unicode_escape") for field in line.split()[1:3])
            if os.path.commonpath([where, point]) == point:
                kinds[point] = kind
    kind = kinds[max(kinds, key=len)]
    is_local = kind in _HOST_FILE_SYSTEMS and kind == kinds["/"]
    return kind if _NETWORK_FILE_SYSTEM.fullmatch(kind) and not is_local else ""


def _tls(settings: MetadataSettings) -> Any:
    """Returns the TLS options of a service, which contain the certificates, or None without TLS."""
    if not settings.tls_ca:
        return None
    files = {"custom_ca": settings.tls_ca, "server_cert": settings.tls_cert, "client_key": settings.tls_key}
    # `server_cert` is the client's certificate: ML Metadata 1.16 passes it as the chain of the client's key
    # (ml_metadata/metadata_store/metadata_store.py, `_get_channel`).
    return metadata_store_pb2.MetadataStoreClientConfig.SSLConfig(
        **{name: _read(path) for name, path in files.items() if path}
    )


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        raise UsageError(
            f"kubeflow.metadata: {path} cannot be read ({error.strerror}); expected a certificate or key in PEM format"
        ) from None
