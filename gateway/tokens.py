"""Access tokens: JWTs that billing signs and anyone can verify with its public keys (EdDSA, RFC 8037).

Checked against the wall clock: a token's life is a promise to others, so moving the business clock does not touch it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.problems import unauthenticated
from services.kit.errors import TollwayError

CACHE_S = 600.0  # the contract: the next key is published an hour ahead, ten minutes are safe
FLOOR_S = 10.0  # between two reads that unknown key ids cause
RETRY_S = 1.0  # between two reads while there are no keys at all
STALE_S = 3600.0  # while billing does not answer: no token that old keys signed lives longer
SKEW_S = 5  # between billing's clock and ours, for tokens from the future; never for expired ones
_MAX_TOKEN = 4096
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

log = structlog.get_logger(__name__)


def looks_like_token(credential: str) -> bool:
    """Keys have no dots; a compact JWS has two."""
    return credential.count(".") == 2


def public_keys(jwks_json: str) -> dict[str, Ed25519PublicKey]:
    """Key id → key, for the members that may verify an EdDSA signature; others are left out."""
    keys: dict[str, Ed25519PublicKey] = {}
    for member in json.loads(jwks_json)["keys"]:
        usable = (
            member.get("kty") == "OKP"
            and member.get("crv") == "Ed25519"
            and member.get("alg", "EdDSA") == "EdDSA"
            and member.get("use", "sig") == "sig"
            and "verify" in member.get("key_ops", ["verify"])
        )
        if not usable or not isinstance(member.get("kid"), str):
            continue
        try:
            raw = base64.urlsafe_b64decode(str(member["x"]) + "==")
            keys[member["kid"]] = Ed25519PublicKey.from_public_bytes(raw)
        except (KeyError, ValueError, binascii.Error):
            log.warning("jwks.key_unreadable")
    return keys


class KeySet:
    """Billing's public keys, read again after ten minutes, or when a token names a key that is not among them.

    `fetch` answers RFC 7517 JSON or raises a TollwayError.
    """

    def __init__(self, fetch: Callable[[], Awaitable[str]], now: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._now = now
        self._lock = asyncio.Lock()
        self._json = ""
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._read_at = self._tried_at = -STALE_S
        self._failure: TollwayError | None = None

    async def jwks(self, max_age_s: float) -> str:
        """The key set as JSON, not older than `max_age_s` unless billing cannot be reached."""
        if self._now() - self._read_at >= max_age_s:
            await self._refresh(max_age_s)
        return self._json

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        if self._now() - self._read_at >= CACHE_S:
            await self._refresh(CACHE_S)
        if kid not in self._keys and self._now() - self._tried_at >= FLOOR_S:
            await self._refresh(FLOOR_S)
        return self._keys.get(kid)

    async def _refresh(self, max_age_s: float) -> None:
        async with self._lock:
            now = self._now()
            if now - self._read_at < max_age_s:
                return  # the one before us in the queue has read them
            usable = bool(self._json) and now - self._read_at < STALE_S
            if usable and now - self._tried_at < FLOOR_S:
                return
            if self._failure is not None and now - self._tried_at < RETRY_S:
                raise self._failure  # those who queued behind a failure do not each wait for one of their own
            try:
                text = await self._fetch()
            except TollwayError as error:
                self._tried_at, self._failure = self._now(), error
                if not usable:
                    raise
                log.warning("jwks.stale")
                return
            self._read_at = self._tried_at = self._now()
            self._json, self._keys, self._failure = text, public_keys(text), None


@dataclass(frozen=True)
class Token:
    """What a verified token says. The tier in it is not here: it may be an hour old, and nobody should act on it."""

    account_id: str
    scopes: frozenset[str]
    key_id: str = ""


async def verify(credential: str, keys: KeySet, issuer: str) -> Token:
    """Raises a 401 Problem, token_expired or token_invalid, with no reason that helps to forge one."""
    claims = await _claims(credential, keys)
    if claims is None or str(claims["iss"]).rstrip("/") != issuer.rstrip("/"):
        raise unauthenticated("token_invalid")
    if claims["exp"] <= time.time():
        raise unauthenticated("token_expired")
    scopes = frozenset(str(claims.get("scope", "")).split())
    return Token(account_id=claims["sub"], scopes=scopes, key_id=str(claims.get("key_id", "")))


async def _claims(credential: str, keys: KeySet) -> dict[str, Any] | None:
    if len(credential) > _MAX_TOKEN or not _COMPACT.fullmatch(credential):
        return None
    try:
        kid = jwt.get_unverified_header(credential).get("kid")
        key = await keys.find(kid) if isinstance(kid, str) else None
        if key is None:
            return None
        claims: dict[str, Any] = jwt.decode(
            credential,
            key,
            algorithms=["EdDSA"],
            leeway=SKEW_S,
            options={
                "require": ["iss", "sub", "iat", "exp"],
                "verify_aud": False,
                "verify_iss": False,
                "verify_exp": False,  # by `verify`, without leeway and told apart
            },
        )
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return None
    numbers = all(isinstance(claims[name], (int, float)) for name in ("iat", "exp"))
    return claims if numbers and claims["sub"] and not isinstance(claims["exp"], bool) else None
