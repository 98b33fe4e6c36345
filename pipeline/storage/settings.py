"""Settings of the metadata store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.settings import Settings


class MetadataSettings(Settings):
    """The ML Metadata store, which keeps executions, artifacts and the cache."""

    kind: Literal["sqlite", "mysql", "postgresql", "grpc"] = Field(
        "sqlite", description="kind of store: a file, a database (mysql also for MariaDB), or a metadata service (grpc)"
    )
    path: str = Field("", description="file of an sqlite store; if empty, ROOT/metadata.sqlite")
    host: str = Field("", description="host of the database or service")
    port: int = Field(
        0, ge=0, le=65535, description="port of the database or service; 0 for the default: 3306, 5432 or 8080"
    )
    database: str = Field("segpipe", description="name of the database")
    user: str = Field("", description="user of the database")
    password_env: str = Field(
        "SEGPIPE_METADATA_PASSWORD", description="environment variable with the password of the database"
    )
    tls_ca: str = Field("", description="file of CA certificates that verify the service; enables TLS")
    tls_cert: str = Field("", description="file of the client certificate, if the service requires one")
    tls_key: str = Field("", description="file of the private key of tls_cert")

    @model_validator(mode="after")
    def _check_tls(self) -> MetadataSettings:
        """Rejects TLS for databases.

        In ML Metadata 1.16 and 1.21, the PostgreSQL client has no TLS ("SSL support is not compiled in"). The MySQL
        client accepts any certificate, falls back to no encryption, and never connects with `verify_server_cert`.
        """
        if self.tls_ca and self.kind != "grpc":
            raise ValueError(
                f"found tls_ca with kind={self.kind}, expected kind=grpc: ML Metadata's database clients cannot "
                "verify a server's certificate. Encrypt the network instead, with a service mesh or a tunnel in the pod"
            )
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_cert and not self.tls_ca):
            raise ValueError("found some of tls_ca, tls_cert and tls_key, expected tls_ca alone or all three")
        return self

    @model_validator(mode="after")
    def _check_host(self) -> MetadataSettings:
        if self.kind != "sqlite" and not self.host:
            raise ValueError(
                f"found kind={self.kind} without a host, expected the host of the store. Set kubeflow.metadata.host, "
                "or kubeflow.metadata.kind=sqlite for a file on one machine"
            )
        return self
