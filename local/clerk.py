"""`python -m local.clerk`: an issuer of outside tokens for local mode, in the shape of Clerk's session tokens.

It stands in where no TOLLWAY_CLERK_ISSUER is set. It binds loopback only and vouches for anybody: POST /token makes a
token for whatever user, organization and role it is told. Its key stays in the state folder, so tokens and accounts
outlive a restart.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_HOST = "127.0.0.1"
LIFE_S = 3600  # Clerk's live for a minute; these are pasted into terminals
LONGEST_S = 30 * 86_400
_ID = re.compile(r"[!-~]{1,255}")
_FIELDS = frozenset({"user", "org", "role", "expires_in"})


class Refused(ValueError):
    """What was asked for cannot be: one sentence for the person."""


class Issuer:
    """One RSA key, its JWKS, and tokens signed with it."""

    def __init__(self, url: str, key: RSAPrivateKey, party: str) -> None:
        self._url = url
        self._key = key
        self._party = party
        numbers = key.public_key().public_numbers()
        self._jwk = {"kty": "RSA", "use": "sig", "alg": "RS256", "e": _b64(numbers.e), "n": _b64(numbers.n)}
        self._jwk["kid"] = f"ins_{self._jwk['n'][:16]}"

    def jwks(self) -> dict[str, Any]:
        return {"keys": [self._jwk]}

    def token(self, user: str, org: str, role: str, life_s: int) -> str:
        """A session token, second version: https://clerk.com/docs/backend-requests/resources/session-tokens."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "v": 2,
            "iss": self._url,
            "sub": user,
            "azp": self._party,
            "sid": f"sess_{uuid.uuid4().hex}",
            "sts": "active",
            "iat": now,
            "nbf": now,
            "exp": now + life_s,
            "jti": uuid.uuid4().hex,
        }
        if org:
            slug = re.sub(r"[^a-z0-9]+", "-", org.lower().removeprefix("org_")).strip("-")
            claims["o"] = {"id": org if org.startswith("org_") else f"org_{org}", "rol": role, "slg": slug or "org"}
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._jwk["kid"], "typ": "JWT"})


def _b64(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def load_key(path: Path) -> RSAPrivateKey:
    """The key of this folder, made on first use and readable by its owner only."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        beside = path.with_suffix(".new")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(pem)
        beside.replace(path)
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise Refused(f"{path} holds no RSA key")
    return key


def wanted(body: Any) -> tuple[str, str, str, int]:
    """User, organization (empty: none), role and life in seconds. Raises Refused naming the member."""
    if not isinstance(body, dict) or body.keys() - _FIELDS:
        raise Refused(f"a JSON object with some of {', '.join(sorted(_FIELDS))} is expected")
    user, org, role = (body.get(name, usual) for name, usual in (("user", "user_dev"), ("org", ""), ("role", "admin")))
    for name, value in (("user", user), ("org", org), ("role", role)):
        if not isinstance(value, str) or not (_ID.fullmatch(value) or (name == "org" and not value)):
            raise Refused(f"{name}: 1 to 255 visible ASCII characters are expected")
    life = body.get("expires_in", LIFE_S)
    if isinstance(life, bool) or not isinstance(life, int) or not -LONGEST_S <= life <= LONGEST_S:
        raise Refused(f"expires_in: whole seconds up to {LONGEST_S} are expected; below zero, it has expired already")
    return user, org, role, life


def application(issuer: Issuer, port: int) -> Starlette:
    async def jwks(_: Request) -> JSONResponse:
        return JSONResponse(issuer.jwks())

    async def token(request: Request) -> JSONResponse:
        # A web page that a developer visits must not be able to ask, whatever name it has for this machine.
        if request.headers.get("host") not in {f"{_HOST}:{port}", f"localhost:{port}"}:
            return JSONResponse({"error": "ask at 127.0.0.1"}, 403)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return JSONResponse({"error": "send JSON with Content-Type: application/json"}, 415)
        try:
            made = issuer.token(*wanted(json.loads(await request.body())))
        except (ValueError, RecursionError) as error:
            return JSONResponse({"error": str(error) if isinstance(error, Refused) else "this is no JSON"}, 422)
        return JSONResponse({"token": made}, headers={"Cache-Control": "no-store"})

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/.well-known/jwks.json", jwks),
            Route("/token", token, methods=["POST"]),
            Route("/healthz", healthz),
        ]
    )


def main() -> None:
    state = Path(os.environ.get("TOLLWAY_STATE") or ".tollway")
    parser = argparse.ArgumentParser(prog="python -m local.clerk", description="Vouches for anybody, on this machine.")
    parser.add_argument("--port", type=int, default=int(os.environ.get("TOLLWAY_CLERK_PORT") or 12112))
    parser.add_argument("--state", type=Path, default=state / "clerk", help="the folder that keeps the key")
    options = parser.parse_args()
    parties = os.environ.get("TOLLWAY_CLERK_AUTHORIZED_PARTIES") or f"http://{_HOST}"
    try:
        key = load_key(options.state / "key.pem")
    except ValueError as error:
        sys.exit(f"clerk: {error}")
    issuer = Issuer(f"http://{_HOST}:{options.port}", key, parties.split(",")[0].strip())
    uvicorn.run(
        application(issuer, options.port),
        host=_HOST,
        port=options.port,
        log_level=os.environ.get("TOLLWAY_LOG_LEVEL", "info").lower(),
        access_log=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
