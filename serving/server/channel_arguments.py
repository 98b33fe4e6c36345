"""Reads `--grpc_channel_arguments`."""

from __future__ import annotations

from components.errors import UsageError


def read_channel_arguments(text: str) -> dict[str, int | str]:
    """Returns gRPC's arguments from a text such as `grpc.max_connection_age_ms=2000,grpc.primary_user_agent=x`.

    A whole number becomes an int, as in `Server::BuildAndStart` in tensorflow_serving/model_servers/server.cc at
    9d981c5. Raises UsageError for an argument without a name or a value.
    """
    arguments: dict[str, int | str] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if not name or not value:
            raise UsageError(
                f"--grpc_channel_arguments: found {part!r}, expected NAME=VALUE with commas between several, "
                "such as grpc.max_connection_age_ms=2000"
            )
        try:
            arguments[name] = int(value)
        except ValueError:
            arguments[name] = value
    return arguments
