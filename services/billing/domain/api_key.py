"""API keys: the kind's prefix, 160 random bits and a checksum, so that a mistyped key is refused without a lookup."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from services.billing.errors import ApiKeyMalformed
from services.kit.base62 import CHECK_DIGITS as _CHECK
from services.kit.base62 import base62 as _base62
from services.kit.base62 import checksum as _checksum

_RANDOM = 27  # base62 digits for 160 bits
SHOWN = 4  # of the random part, so that a person can tell two keys apart


@dataclass(frozen=True)
class NewKey:
    """`secret` is shown once; `hash` and `shown` are kept."""

    secret: str
    hash: bytes
    shown: str


def hash_key(secret: str) -> bytes:
    """SHA-256: enough for 160 random bits, and cheap on every request."""
    return hashlib.sha256(secret.encode()).digest()


def new_key(prefix: str, random: int | None = None) -> NewKey:
    body = prefix + _base62(secrets.randbits(160) if random is None else random, _RANDOM)
    secret = body + _checksum(body)
    return NewKey(secret=secret, hash=hash_key(secret), shown=body[: len(prefix) + SHOWN] + "…" + secret[-SHOWN:])


def kind_of(secret: str, prefixes: Mapping[str, str]) -> str:
    """The kind whose prefix the key has; `prefixes` maps prefix to kind.

    Raises ApiKeyMalformed for another prefix or length, a foreign character or a wrong checksum.
    """
    for prefix, kind in prefixes.items():
        if not secret.startswith(prefix) or len(secret) != len(prefix) + _RANDOM + _CHECK:
            continue
        body, check = secret[:-_CHECK], secret[-_CHECK:]
        if secret[len(prefix) :].isascii() and secret[len(prefix) :].isalnum() and _checksum(body) == check:
            return kind
    raise ApiKeyMalformed("This is not an API key: check that it was copied whole.")
