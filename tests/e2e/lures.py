"""Tokens by which a stranger hopes to be believed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from tests.e2e.world import Json


def lures(address: str, header: Json, said: Json, modulus: bytes) -> dict[str, str]:
    """Tokens that name a key of a stranger's, or where one lies, or take the public key for a secret."""
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    own = json.loads(RSAAlgorithm.to_jwk(stranger.public_key()))
    public = rsa.RSAPublicNumbers(65537, int.from_bytes(modulus, "big")).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    confused = f"{_part({**header, 'alg': 'HS256'})}.{_part(said)}"
    mac = hmac.new(pem, confused.encode(), hashlib.sha256).digest()

    def by_stranger(more: Json, **claims: Any) -> str:
        return jwt.encode(said | claims, stranger, "RS256", headers=header | more)

    return {
        "jku": by_stranger({"jku": f"{address}/jwks.json"}),
        "x5u": by_stranger({"x5u": f"{address}/chain.pem"}),
        "jwk": by_stranger({"jwk": own}),
        "jwk under its own id": by_stranger({"jwk": own | {"kid": "mine"}, "kid": "mine"}),
        "x5c": by_stranger({"x5c": ["MIIB"]}),
        "a kid that is an address": by_stranger({"kid": f"{address}/key.pem"}),
        "a kid that is a path": by_stranger({"kid": "../../../../dev/null"}),
        "an issuer elsewhere": by_stranger({}, iss=address),
        "HS256 with the public key": f"{confused}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}",
        "none": f"{_part({**header, 'alg': 'none'})}.{_part(said)}.",
    }


def _part(value: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
