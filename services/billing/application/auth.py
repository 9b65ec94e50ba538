"""Who calls: API keys, and the JWTs that they are exchanged for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from jwt.algorithms import OKPAlgorithm

from services.billing.application.context import Context
from services.billing.domain.api_key import hash_key, kind_of
from services.billing.errors import ApiKeyRevoked, ApiKeyUnknown
from services.billing.storage.keys import KeyOwner
from services.billing.storage.secrets import SigningKey
from services.kit.ids import new_id

TOKEN_LIFE = timedelta(seconds=3600)  # skytale: "Existing JWTs keep the old tier until they expire (1 hour max)"
ANNOUNCED_AHEAD = timedelta(hours=1)  # a key is in the JWKS this long before it signs
SIGNING_PERIOD = timedelta(days=30)
_CACHE = timedelta(seconds=60)


async def authenticate(api_key: str, context: Context) -> KeyOwner:
    """The key's owner with the tier of this moment. A malformed key is refused without reading the database."""
    prefixes = {kind.prefix: name for name, kind in context.catalog.key_kinds.items()}
    kind_of(api_key, prefixes)
    async with context.unit_of_work() as uow:
        owner = await uow.keys.owner(hash_key(api_key))
    if owner is None:
        raise ApiKeyUnknown("This API key is not known.")
    if owner.revoke_time is not None and owner.revoke_time <= context.business.now():
        raise ApiKeyRevoked("This API key was revoked.")
    return owner


class SigningKeys:
    """The keys that sign: one active, the next one announced an hour ahead, old ones listed while they may matter.

    They are rows, so every replica signs with the same ones; read again once a minute.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keys: list[SigningKey] = []
        self._read_time: datetime | None = None

    async def rotate(self) -> None:
        """Makes the first key, or the next one when it is time. Any number of replicas may call it at once."""
        now = self._context.wall.now()
        async with self._context.unit_of_work() as uow:
            await uow.signing_keys.lock()
            keys = await uow.signing_keys.all()
            for key, successor in pairwise(keys):
                # Its last token has expired, and every cache of the key set has been renewed since.
                if successor.active_time + 2 * TOKEN_LIFE < now:
                    await uow.signing_keys.remove(key.id)
            if not keys:
                await uow.signing_keys.add(self._new(active=now))
            elif keys[-1].active_time + SIGNING_PERIOD - ANNOUNCED_AHEAD <= now:
                await uow.signing_keys.add(self._new(active=now + ANNOUNCED_AHEAD))
            await uow.commit()
        self._read_time = None

    async def jwks(self) -> str:
        """RFC 7517, every key that may have signed a valid token and the next one."""
        return json.dumps({"keys": [json.loads(key.public_jwk) for key in await self._current()]})

    async def sign(self, claims: Mapping[str, Any]) -> str:
        now = self._context.wall.now()
        active = [key for key in await self._current() if key.active_time <= now][-1]
        private = load_pem_private_key(self._context.vault.open(active.private_key), password=None)
        assert isinstance(private, Ed25519PrivateKey)  # noqa: S101 - _new makes no other
        return jwt.encode(
            dict(claims),
            private,
            algorithm="EdDSA",
            headers={"kid": active.id, "typ": "at+jwt"},
        )

    async def _current(self) -> list[SigningKey]:
        now = self._context.wall.now()
        if self._read_time is None or now - self._read_time > _CACHE:
            async with self._context.unit_of_work() as uow:
                self._keys = await uow.signing_keys.all()
            self._read_time = now
        return self._keys

    def _new(self, active: datetime) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        key_id = new_id("jwk")
        jwk: dict[str, Any] = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
        jwk |= {"kid": key_id, "use": "sig", "alg": "EdDSA", "key_ops": ["verify"]}
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return SigningKey(key_id, self._context.vault.seal(pem), json.dumps(jwk), active)


async def exchange_token(api_key: str, context: Context, keys: SigningKeys) -> str:
    """A JWT with the tier of now; it keeps that tier until it expires."""
    owner = await authenticate(api_key, context)
    now = context.wall.now()
    return await keys.sign(
        {
            "iss": context.settings.public_url,
            "sub": owner.account.id,
            "slug": owner.account.slug,
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + TOKEN_LIFE).timestamp()),
            "jti": new_id("tok"),
            "tier": owner.tier,
            "version": owner.version,
            "key_id": owner.key_id,
            "scope": " ".join(context.catalog.key_kinds[owner.key_kind].scopes),
        }
    )
