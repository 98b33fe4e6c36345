"""Turns the settings of a metadata store into ML Metadata's connection."""

from __future__ import annotations

import os
from typing import Any

from ml_metadata.proto import metadata_store_pb2

from pipeline.kubeflow.settings import MetadataSettings

_PORTS = {"mysql": 3306, "postgresql": 5432, "grpc": 8080}


def connection_config(settings: MetadataSettings, sqlite_path: str) -> Any:
    """Returns a `ConnectionConfig`, or a `MetadataStoreClientConfig` for a service.

    Args:
        settings: which store; a database's password is read from the environment.
        sqlite_path: file of an SQLite store.
    """
    if settings.kind == "sqlite":
        sqlite = metadata_store_pb2.SqliteMetadataSourceConfig(
            filename_uri=sqlite_path,
            connection_mode=metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE,
        )
        return metadata_store_pb2.ConnectionConfig(sqlite=sqlite)
    port = settings.port or _PORTS[settings.kind]
    if settings.kind == "grpc":
        return metadata_store_pb2.MetadataStoreClientConfig(host=settings.host, port=port)
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
