"""Headers with a grammar: Idempotency-Key, RateLimit, and the caller's address behind proxies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated, NamedTuple

from fastapi import Depends, Request

from gateway.problems import Problem

# A structured-field string (RFC 9651) or, as Stripe's clients send it, the bare text.
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x7e]+")
_MAX_KEY = 255


def parse_idempotency_key(values: Sequence[str]) -> str:
    """The key, or "" without the header. `"k"` and `k` are the same key. Raises idempotency_key_invalid."""
    if not values:
        return ""
    text = values[0].strip()
    quoted = _QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if len(values) > 1 or not 0 < len(key) <= _MAX_KEY or not (quoted or _BARE.fullmatch(text)):
        problem = Problem("idempotency_key_invalid")
        problem.fields = (("Idempotency-Key", problem.detail),)
        raise problem
    return key


async def _idempotency_key(request: Request) -> str:
    return parse_idempotency_key(request.headers.getlist("idempotency-key"))


IdempotencyKey = Annotated[str, Depends(_idempotency_key)]


class Window(NamedTuple):
    """One limit as the RateLimit headers tell it. `resets_in_s` is None when it never resets."""

    name: str
    limit: int
    remaining: int
    resets_in_s: int | None


def rate_limit(windows: Iterable[Window]) -> dict[str, str]:
    """RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers); nothing when nothing limits."""
    shown = [(window, window.name.replace("\\", r"\\").replace('"', r"\"")) for window in windows]
    if not shown:
        return {}
    policies = [f'"{name}";q={window.limit}' for window, name in shown]
    states = [
        f'"{name}";r={window.remaining}' + ("" if window.resets_in_s is None else f";t={window.resets_in_s}")
        for window, name in shown
    ]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


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
