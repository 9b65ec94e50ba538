"""Access tokens: JWTs that billing signs and anyone can verify with its public keys (EdDSA, RFC 8037).

Checked against the wall clock: a token's life is a promise to others, so moving the business clock does not touch it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from dataclasses import dataclass
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.keyset import KeySet
from gateway.problems import unauthenticated

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


@dataclass(frozen=True)
class Token:
    """What a verified token says. The tier in it is not here: it may be an hour old, and nobody should act on it."""

    account_id: str
    scopes: frozenset[str]
    key_id: str = ""
    slug: str = ""


async def verify(credential: str, keys: KeySet[Ed25519PublicKey], issuer: str) -> Token:
    """Raises a 401 Problem, token_expired or token_invalid, with no reason that helps to forge one."""
    claims = await _claims(credential, keys)
    if claims is None or str(claims["iss"]).rstrip("/") != issuer.rstrip("/"):
        raise unauthenticated("token_invalid")
    if claims["exp"] <= time.time():
        raise unauthenticated("token_expired")
    scopes = frozenset(str(claims.get("scope", "")).split())
    return Token(
        account_id=claims["sub"], scopes=scopes, key_id=str(claims.get("key_id", "")), slug=str(claims.get("slug", ""))
    )


async def _claims(credential: str, keys: KeySet[Ed25519PublicKey]) -> dict[str, Any] | None:
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
