"""API keys: the kind's prefix, 160 random bits and a checksum, so that a mistyped key is refused without a lookup."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from services.billing.catalog.model import Catalog, Refusal
from services.billing.errors import ApiKeyMalformed, KeyRefused
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


def sharing_allowance(catalog: Catalog, kind: str) -> list[str]:
    """The kinds that are counted together with this one."""
    allowance = catalog.key_kinds[kind].allowance
    return [name for name, each in catalog.key_kinds.items() if allowance and each.allowance == allowance]


def refuse_another(catalog: Catalog, kind: str, tier: str, held: int, billing_url: str) -> None:
    """Raises KeyRefused when the tier's gate for the kind is closed, or its allowance is held already."""
    asked = catalog.key_kinds[kind]
    told = {"billing_url": billing_url, "support_contact": catalog.product.contact}
    if asked.gate and not catalog.gate_open(tier, asked.gate):
        detail = "Your plan does not include issuing keys of this kind. Keys that you have are not touched."
        raise _refused(
            asked.gate_refusal or Refusal(reason=f"{asked.gate}_required"[:63], status=402, detail=detail), told
        )
    limit = catalog.allowance(tier, asked.allowance) if asked.allowance else None
    if limit is not None and held >= limit:
        detail = "Your plan's keys of this kind are all in use. Revoke one, or upgrade for more."
        used = {"used": str(held), "limit": str(limit)}
        default = Refusal(reason=f"{asked.allowance}_allowance_used"[:63], status=402, detail=detail)
        raise _refused(asked.allowance_refusal or default, told | used)


def _refused(refusal: Refusal, told: Mapping[str, str]) -> KeyRefused:
    error = KeyRefused(refusal.detail, reason=refusal.reason.upper(), http_status=str(refusal.status))
    error.metadata |= told
    return error
