"""Disables gRPC's HTTP proxy for servers on this machine."""

from __future__ import annotations

import ipaddress
import re

_SCHEME = re.compile(r"(dns:(//[^/]*/)?|ipv[46]:)", re.IGNORECASE)
_PORT = re.compile(r":\d*$")


def proxy_options(target: str) -> list[tuple[str, int]]:
    """Returns the channel options that disable the proxy if the target is on this machine.

    Unless `no_proxy` lists it, gRPC sends even 127.0.0.1 to the proxy of `http_proxy`, where it is another machine. The
    target is HOST:PORT, or a gRPC name such as `dns:///HOST:PORT`.
    """
    return [("grpc.enable_http_proxy", 0)] if _is_loopback(_SCHEME.sub("", target, count=1)) else []


def _is_loopback(address: str) -> bool:
    host = _PORT.sub("", address).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
