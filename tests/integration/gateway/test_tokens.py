"""Access tokens: what is accepted, and that keys are read no oftener than needed."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest

from gateway import keyset
from tests.integration.gateway.conftest import Stack
from tests.integration.gateway.fakes import SigningKey
from tests.integration.gateway.test_routes import assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def use(stack: Stack, token: str):
    return await stack.http.post("/v1/usage", json={"meter": "messages"}, headers={"Authorization": f"Bearer {token}"})


def b64(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_an_expired_token_is_told_apart_from_a_wrong_one(stack: Stack) -> None:
    account_id, _ = stack.account()
    key, claims = stack.billing.signing[0], stack.billing.claims
    now = int(time.time())
    expired = await use(stack, key.sign(claims(account_id, iat=now - 3600, nbf=now - 3600, exp=now - 1)))
    assert_problem(expired, 401, "token_expired")
    assert 'error="invalid_token"' in expired.headers["www-authenticate"]
    assert (await use(stack, key.sign(claims(account_id)))).status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"iat": None},
        {"iat": 4_102_444_800},
        {"nbf": 4_102_444_800},
    ],
    ids=str,
)
async def test_a_token_with_wrong_claims_is_refused(stack: Stack, claims: dict) -> None:
    account_id, _ = stack.account()
    said = {name: value for name, value in stack.billing.claims(account_id, **claims).items() if value is not None}
    key = stack.billing.signing[0]
    signed = f"{b64({'alg': 'EdDSA', 'kid': key.kid})}.{b64(said)}"
    token = f"{signed}.{b64(key.private.sign(signed.encode()))}"
    assert_problem(await use(stack, token), 401, "token_invalid")
    assert stack.quota.fault.calls["Consume"] == 0


async def test_a_token_signed_otherwise_is_refused(stack: Stack) -> None:
    account_id, _ = stack.account()
    key, claims = stack.billing.signing[0], stack.billing.claims(account_id)
    good = key.sign(claims)
    head, body, signature = good.split(".")
    stranger = SigningKey("k1")
    public = key.private.public_key().public_bytes_raw()
    forged = {
        "another key under the same id": stranger.sign(claims),
        "no signature": f"{b64({'alg': 'none', 'kid': 'k1'})}.{body}.",
        "alg none with one": f"{b64({'alg': 'none', 'kid': 'k1'})}.{body}.{signature}",
        "HS256 over the public key": jwt.encode(claims, public + bytes(32), algorithm="HS256", headers={"kid": "k1"}),
        "no key id": jwt.encode(claims, key.private, algorithm="EdDSA"),
        "an embedded key": stranger.sign(claims, kid="k9", jwk=stranger.public()),
        "another body": f"{head}.{b64({**claims, 'sub': 'acct_other'})}.{signature}",
        "padding": f"{good}==",
        "standard base64": f"{head}.{body}.{signature[:-2]}+/",
        "too long": f"{head}.{body}{'A' * 5000}.{signature}",
        "an unknown critical header": key.sign(claims, crit=["b64"], b64=False),
    }
    for name, token in forged.items():
        answer = await use(stack, token)
        assert answer.status_code == 401, name
    assert stack.quota.fault.calls["Consume"] == 0


async def test_a_token_without_the_scope_is_403(stack: Stack) -> None:
    account_id, _ = stack.account()
    token = stack.billing.signing[0].sign(stack.billing.claims(account_id, scope="billing"))
    assert_problem(await use(stack, token), 403, "insufficient_scope")


async def test_many_tokens_cost_one_read_of_the_keys_and_no_authentication(own: Stack) -> None:
    account_id, _ = own.account()
    token = own.billing.signing[0].sign(own.billing.claims(account_id))
    for _ in range(3):
        assert (await use(own, token)).status_code == 200
    assert own.billing.fault.calls["GetJwks"] == 1
    assert own.billing.fault.calls["Authenticate"] == 0


async def test_a_new_signing_key_is_found_and_unknown_ones_do_not_flood_billing(
    own: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_id, _ = own.account()
    assert (await use(own, own.billing.signing[0].sign(own.billing.claims(account_id)))).status_code == 200
    own.billing.signing.insert(0, SigningKey("k2"))
    rotated = own.billing.signing[0].sign(own.billing.claims(account_id))
    for _ in range(5):  # within the floor
        assert_problem(await use(own, rotated), 401, "token_invalid")
    assert own.billing.fault.calls["GetJwks"] == 1
    monkeypatch.setattr(keyset.KeySet, "floor_s", 0.0)
    assert (await use(own, rotated)).status_code == 200
    assert own.billing.fault.calls["GetJwks"] == 2


async def test_known_tokens_work_while_billing_is_down(own: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    account_id, _ = own.account()
    token = own.billing.signing[0].sign(own.billing.claims(account_id))
    assert (await use(own, token)).status_code == 200
    await own.billing_server.stop()
    monkeypatch.setattr(keyset, "CACHE_S", 0.0)
    assert (await use(own, token)).status_code == 200


async def test_without_keys_and_without_billing_a_token_is_503_not_401(own: Stack) -> None:
    account_id, _ = own.account()
    token = own.billing.signing[0].sign(own.billing.claims(account_id))
    await own.billing_server.stop()
    assert_problem(await use(own, token), 503, "unavailable")


async def test_the_published_keys_verify_a_token_with_an_ordinary_library(stack: Stack) -> None:
    account_id, auth = stack.account()
    token = (await stack.http.post("/v1/auth/token", headers=auth)).json()["access_token"]
    answer = await stack.http.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=60"
    keys = jwt.PyJWKSet.from_dict(answer.json())
    kid = jwt.get_unverified_header(token)["kid"]
    claims = jwt.decode(token, keys[kid], algorithms=["EdDSA"])
    assert (claims["sub"], claims["tier"]) == (account_id, "free")
