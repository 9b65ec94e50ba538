"""Tokens of an outside issuer, as Clerk makes them: RS256 JWTs whose keys lie at one address that the operator set.

A token says who and for which organization; where its key is, it is never asked. CONTRACT "Vatly" says what is checked;
RFC 8725 why: one algorithm, keys of the right use and strength, and nothing that a header names is fetched or believed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from gateway.keyset import KeySet
from gateway.problems import unauthenticated
from gateway.settings import GatewaySettings
from services.kit.config import LOOPBACK
from services.kit.errors import Unavailable
from tollway.billing.v1 import auth_pb2 as pb

FLOOR_S = 60.0  # between two reads that unknown key ids cause
STALE_S = 86_400.0  # while the issuer does not answer: its keys change seldom, and its tokens live for minutes
FETCH_S = 5.0
MAX_JWKS_BYTES = 256 * 1024
MAX_KEYS = 100
LEEWAY_S = 5.0  # between the issuer's clock and ours
_MAX_TOKEN = 16 * 1024
_PART = re.compile(r"[A-Za-z0-9_-]+")
_ID = re.compile(r"[!-~]{1,255}")
# Headers that name a key or where one is. Whoever sends one hopes that we look there.
_KEY_NAMING = frozenset({"jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"})

_ORGANIZATION = (("id", "org_id", "id"), ("role", "org_role", "rol"), ("slug", "org_slug", "slg"))
_JWS = jwt.PyJWS(algorithms=["RS256"])

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class OutsideToken:
    """What a verified token says."""

    issuer: str
    external_id: str  # the organization, else the user
    subject: str
    role: pb.Role.ValueType  # OWNER without one in the token: the account is the user's own
    slug: str


def public_keys(jwks_json: str) -> dict[str, RSAPublicKey]:
    """Key id → key, for the members that may verify RS256; others are left out. Raises Unavailable when it is no key
    set at all: then the keys that we have go on."""
    try:
        members = json.loads(jwks_json)["keys"]
        usable = [member for member in members if isinstance(member, dict)][:MAX_KEYS]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Unavailable("The issuer's key set cannot be read.", reason="JWKS_UNREADABLE") from None
    keys: dict[str, RSAPublicKey] = {}
    several: set[str] = set()  # ids under which there are different keys: which of them is meant, nobody can tell
    for member in usable:
        kid, operations = member.get("kid"), member.get("key_ops", ["verify"])
        fits = (
            member.get("kty") == "RSA"
            and member.get("alg", "RS256") == "RS256"
            and member.get("use", "sig") == "sig"
            and isinstance(operations, list)
            and "verify" in operations
        )
        if not fits or not isinstance(kid, str) or not kid:
            continue
        try:
            key = _rsa(str(member["n"]), str(member["e"]))
        except (KeyError, ValueError):
            log.warning("outside.key_unusable")
            continue
        if keys.setdefault(kid, key).public_numbers() != key.public_numbers():
            log.warning("outside.key_id_ambiguous")
            several.add(kid)
    return {kid: key for kid, key in keys.items() if kid not in several}


def _said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError when a member is there twice: parsers differ in which of them counts (RFC 7515,
    section 4; RFC 7519, section 4)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found


def _rsa(n: str, e: str) -> RSAPublicKey:
    """Raises ValueError for what is no public key of 2048 to 8192 bits (RFC 7518, section 3.3)."""
    modulus, exponent = (int.from_bytes(_decoded(text), "big") for text in (n, e))
    if not 2048 <= modulus.bit_length() <= 8192 or not 3 <= exponent < 2**33:
        raise ValueError("of another strength")
    return RSAPublicNumbers(exponent, modulus).public_key()


def _decoded(part: str) -> bytes:
    """Base64url without padding, in its one canonical form: a changed character is another text, so it is refused.
    Raises ValueError."""
    if not _PART.fullmatch(part):
        raise ValueError("not base64url")
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise ValueError("not canonical")
    return raw


async def fetch(url: str) -> str:
    """The issuer's key set: no redirect, bounded in time and size. Raises Unavailable."""
    problem = Unavailable("The issuer's keys cannot be read. Try again in a moment.", reason="JWKS_UNAVAILABLE")
    local = urlsplit(url).hostname in LOOPBACK
    try:
        async with (
            asyncio.timeout(FETCH_S),
            httpx.AsyncClient(follow_redirects=False, trust_env=not local, timeout=FETCH_S) as client,
            client.stream("GET", url, headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code != 200:
                log.warning("outside.jwks_refused", status=response.status_code)
                raise problem
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_JWKS_BYTES:
                    log.warning("outside.jwks_too_large")
                    raise problem
            return body.decode()
    except (httpx.HTTPError, TimeoutError, UnicodeDecodeError) as error:
        log.warning("outside.jwks_unreachable", error=type(error).__name__)
        raise problem from None


class _Keys(KeySet[RSAPublicKey]):
    floor_s = FLOOR_S
    stale_s = STALE_S


class OutsideTokens:
    """Verifies the tokens of the issuer that the settings name; without one, no token is any good."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._issuer = settings.clerk_issuer
        self._parties = settings.authorized_parties
        self._audience = settings.clerk_audience
        url = settings.jwks_url
        self._keys = _Keys(lambda: fetch(url), public_keys)

    async def verify(self, credential: str) -> OutsideToken:
        """Raises a 401 Problem, token_expired or token_invalid, with no reason that helps to forge one; Unavailable
        while the issuer's keys cannot be had."""
        claims = await self._claims(credential)
        token = self._read(claims) if claims is not None else None
        if claims is None or token is None:
            raise unauthenticated("token_invalid")
        if claims["exp"] <= time.time() - LEEWAY_S:
            raise unauthenticated("token_expired")
        return token

    async def _claims(self, credential: str) -> dict[str, Any] | None:
        """The claims, if one of the issuer's keys signed them."""
        if not self._issuer or len(credential) > _MAX_TOKEN:
            return None
        try:
            header = json.loads(_decoded(credential.partition(".")[0]), object_pairs_hook=_said_once)
            for part in credential.split(".")[1:]:
                _decoded(part)
            kid = self._kid(header)
            key = await self._keys.find(kid) if kid else None
            if key is None:
                return None
            # The library's checks of claims convert types and know no azp: only the signature is left to it.
            claims = json.loads(_JWS.decode(credential, key, algorithms=["RS256"]), object_pairs_hook=_said_once)
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None
        return claims if isinstance(claims, dict) else None

    def _kid(self, header: Any) -> str | None:
        if not isinstance(header, dict) or header.get("alg") != "RS256":
            return None
        if "crit" in header or "b64" in header or _KEY_NAMING & header.keys():
            return None
        typ = header.get("typ", "JWT")
        if not isinstance(typ, str) or typ.upper().removeprefix("APPLICATION/") != "JWT":
            return None
        kid = header.get("kid")
        return kid if isinstance(kid, str) else None

    def _read(self, claims: Mapping[str, Any]) -> OutsideToken | None:
        now = time.time()
        subject = claims.get("sub")
        if claims.get("iss") != self._issuer or not _is_id(subject) or not _is_time(claims.get("exp")):
            return None
        for name in ("nbf", "iat"):
            if name in claims and (not _is_time(claims[name]) or claims[name] > now + LEEWAY_S):
                return None
        party = claims.get("azp")
        if self._parties and not (isinstance(party, str) and party in self._parties):
            return None
        audience = claims.get("aud")
        if self._audience and self._audience not in (audience if isinstance(audience, list) else [audience]):
            return None
        if claims.get("sts", "active") != "active":
            return None  # Clerk: a session that still has something to do before it counts as signed in
        organization = self._organization(claims)
        if organization is None:
            return None
        external_id, role, slug = organization
        return OutsideToken(self._issuer, external_id or str(subject), str(subject), role, slug)

    def _organization(self, claims: Mapping[str, Any]) -> tuple[str, pb.Role.ValueType, str] | None:
        """Id (empty: none), role and slug, from `org_*` or `o.*`, Clerk's first and second form of session tokens."""
        second = claims.get("o", {})
        if not isinstance(second, dict):
            return None
        said: dict[str, str] = {}
        for name, first_form, second_form in _ORGANIZATION:
            found = [value for value in (claims.get(first_form), second.get(second_form)) if value is not None]
            if not all(_is_id(value) for value in found) or len(set(found)) > 1:
                return None
            said[name] = found[0] if found else ""
        if not said["id"] and ("o" in claims or said["role"]):
            return None  # an organization without a name is nobody's
        role = pb.ROLE_OWNER
        if said["role"]:
            role = pb.ROLE_ADMIN if said["role"].removeprefix("org:") == "admin" else pb.ROLE_MEMBER
        return said["id"], role, said["slug"]


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -(2**53) < value < 2**53
