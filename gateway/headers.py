"""Headers with a grammar: Idempotency-Key, RateLimit, and the caller's address behind proxies."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated

from fastapi import Depends, Request

from gateway.problems import Problem
from services.kit.http_fields import Window, idempotency_key, rate_limit

__all__ = ["IdempotencyKey", "RemoteAddress", "Window", "client_address", "parse_idempotency_key", "rate_limit"]


def parse_idempotency_key(values: Sequence[str]) -> str:
    """The key, or "" without the header. `"k"` and `k` are the same key. Raises idempotency_key_invalid."""
    key = idempotency_key(values)
    if key is None:
        problem = Problem("idempotency_key_invalid")
        problem.fields = (("Idempotency-Key", problem.detail),)
        raise problem
    return key


async def _idempotency_key(request: Request) -> str:
    return parse_idempotency_key(request.headers.getlist("idempotency-key"))


IdempotencyKey = Annotated[str, Depends(_idempotency_key)]


Networks = Sequence[IPv4Network | IPv6Network]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Reads `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` and `[::1]:80`; an IPv4 address in IPv6's clothes is IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def client_address(peer: str, forwarded: Sequence[str], trusted: Networks) -> str:
    """Who called: the last address of X-Forwarded-For that no trusted proxy has, if the peer is a trusted proxy.

    A caller can write anything to the left of what our proxies add, so the list is read from the right, and ends at
    the first entry that is not an address.
    """
    caller = _address(peer)
    if caller is None:
        return ""
    hops = [hop for value in forwarded for hop in value.split(",")]
    while hops and any(caller in network for network in trusted):
        before = _address(hops.pop())
        if before is None:
            break
        caller = before
    return str(caller)


async def _remote_address(request: Request) -> str:
    peer = request.client.host if request.client else ""
    return client_address(peer, request.headers.getlist("x-forwarded-for"), request.app.state.trusted_proxies)


RemoteAddress = Annotated[str, Depends(_remote_address)]
