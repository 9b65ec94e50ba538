"""When the public keys are read again."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.keyset import CACHE_S, FLOOR_S, RETRY_S, STALE_S, KeySet
from gateway.tokens import public_keys
from services.kit.errors import Unavailable

X = base64.urlsafe_b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).rstrip(b"=").decode()
KEY = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": X}


class Source:
    """A billing that answers these keys, or is down; and a clock that tests move."""

    def __init__(self) -> None:
        self.reads = 0
        self.down = False
        self.now = 0.0
        self.kids = ["k1"]

    async def fetch(self) -> str:
        self.reads += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("down")
        return json.dumps({"keys": [{**KEY, "kid": kid} for kid in self.kids]})

    def keys(self) -> KeySet[Ed25519PublicKey]:
        return KeySet(self.fetch, public_keys, lambda: self.now)


async def test_many_at_once_cause_one_read() -> None:
    source = Source()
    keys = source.keys()
    found = await asyncio.gather(*(keys.find("k1") for _ in range(50)))
    assert all(found)
    assert source.reads == 1


async def test_keys_are_read_again_after_ten_minutes() -> None:
    source = Source()
    keys = source.keys()
    await keys.find("k1")
    source.now = CACHE_S - 1
    await keys.find("k1")
    assert source.reads == 1
    source.now, source.kids = CACHE_S, ["k2"]
    assert await keys.find("k1") is None
    assert source.reads == 2


async def test_unknown_key_ids_cause_at_most_one_read_per_floor() -> None:
    source = Source()
    keys = source.keys()
    await keys.find("k1")
    for step in range(100):
        source.now = step * FLOOR_S / 10
        assert await keys.find(f"made-up-{step}") is None
    assert source.reads <= 1 + 100 / 10


async def test_an_outage_keeps_the_keys_for_an_hour_and_asks_no_more_often_than_the_floor() -> None:
    source = Source()
    keys = source.keys()
    await keys.find("k1")
    source.down, source.now = True, STALE_S - 1
    assert await keys.find("k1")
    source.now = STALE_S
    with pytest.raises(Unavailable):
        await keys.find("k1")
    source.down, source.now = False, STALE_S + RETRY_S
    assert await keys.find("k1")


async def test_during_an_outage_each_request_does_not_wait_for_billing() -> None:
    source = Source()
    keys = source.keys()
    await keys.find("k1")
    source.down, source.now = True, CACHE_S + 1
    for _ in range(20):
        assert await keys.find("k1")
    assert source.reads <= 2


async def test_without_keys_those_who_queue_share_one_failure() -> None:
    source = Source()
    source.down = True
    keys = source.keys()
    failures = await asyncio.gather(*(keys.find("k1") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(failure, Unavailable) for failure in failures)
    assert source.reads == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"kty": "RSA"},
        {"crv": "X25519"},
        {"alg": "HS256"},
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"kid": 7},
        {"x": "AAAA"},
        {"x": "not base64!"},
    ],
    ids=str,
)
def test_a_key_that_may_not_verify_is_left_out(changed: dict[str, object]) -> None:
    assert public_keys(json.dumps({"keys": [{**KEY, **changed}, {**KEY, "kid": "k2"}]})).keys() == {"k2"}
