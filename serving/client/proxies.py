"""Keeps gRPC's HTTP proxy out of conversations inside this machine."""

from __future__ import annotations

import ipaddress
import re

_SCHEME = re.compile(r"(dns:(//[^/]*/)?|ipv[46]:)", re.IGNORECASE)
_PORT = re.compile(r":\d*$")


def proxy_options(target: str) -> list[tuple[str, int]]:
    """Returns the options of a channel that leave out the proxy where the server is on this machine.

    Unless `no_proxy` names it, gRPC asks the proxy of `http_proxy` even for 127.0.0.1, which is another machine there.

    Args:
        target: HOST:PORT, or a name of gRPC's such as `dns:///HOST:PORT`.
    """
    return [("grpc.enable_http_proxy", 0)] if _is_loopback(_SCHEME.sub("", target, count=1)) else []


def _is_loopback(address: str) -> bool:
    host = _PORT.sub("", address).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
