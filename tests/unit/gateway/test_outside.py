"""Tokens of an outside issuer: what is accepted, and every way of being none. CONTRACT "Vatly", RFC 8725."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import outside
from gateway.outside import OutsideToken, OutsideTokens, public_keys
from gateway.problems import Problem
from gateway.settings import GatewaySettings
from services.kit.errors import Unavailable
from tollway.billing.v1 import auth_pb2 as pb

ISSUER, APP = "https://clerk.vatly.dev", "https://app.vatly.dev"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def b64(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwk(key: rsa.RSAPrivateKey = KEY, **more: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    n, e = (b64(number.to_bytes((number.bit_length() + 7) // 8, "big")) for number in (numbers.n, numbers.e))
    return {"kty": "RSA", "kid": "k1", "alg": "RS256", "use": "sig", "n": n, "e": e} | more


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    said = {"iss": ISSUER, "sub": "user_ada", "azp": APP, "iat": now, "nbf": now - 5, "exp": now + 60, "sid": "sess_1"}
    return {name: value for name, value in (said | more).items() if value is not ...}


def sign(said: Any, key: rsa.RSAPrivateKey = KEY, **header: Any) -> str:
    head = {"alg": "RS256", "typ": "JWT", "kid": "k1"} | header
    payload = said if isinstance(said, bytes) else json.dumps(said).encode()
    signed = f"{b64({name: value for name, value in head.items() if value is not ...})}.{b64(payload)}"
    return f"{signed}.{b64(jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(signed.encode(), key))}"


class Issuer:
    def __init__(self, *members: Mapping[str, Any]) -> None:
        self.members = list(members) or [jwk()]
        self.fetched: list[str] = []
        self.down = False

    async def fetch(self, url: str) -> str:
        self.fetched.append(url)
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("down")
        return json.dumps({"keys": self.members})


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Issuer:
    found = Issuer()
    monkeypatch.setattr(outside, "fetch", found.fetch)
    return found


def verifier(**more: Any) -> OutsideTokens:
    given_ = {"clerk_issuer": ISSUER, "clerk_authorized_parties": f"{APP}, https://other.vatly.dev"} | more
    return OutsideTokens(GatewaySettings(local=True, **given_))


async def refusal(token: str, tokens: OutsideTokens | None = None) -> str:
    with pytest.raises(Problem) as caught:
        await (tokens or verifier()).verify(token)
    assert caught.value.status == 401
    assert "invalid_token" in caught.value.headers["WWW-Authenticate"]
    return caught.value.code


async def test_a_session_token_names_the_user_and_their_own_account(issuer: Issuer) -> None:
    token = await verifier().verify(sign(claims()))
    assert token == OutsideToken(ISSUER, "user_ada", "user_ada", pb.ROLE_OWNER, "")
    assert issuer.fetched == [f"{ISSUER}/.well-known/jwks.json"]


@pytest.mark.parametrize(
    ("said", "external_id", "role", "slug"),
    [
        ({"org_id": "org_1", "org_role": "org:admin", "org_slug": "acme"}, "org_1", pb.ROLE_ADMIN, "acme"),
        ({"o": {"id": "org_1", "rol": "admin", "slg": "acme"}}, "org_1", pb.ROLE_ADMIN, "acme"),
        ({"org_id": "org_1", "org_role": "org:member"}, "org_1", pb.ROLE_MEMBER, ""),
        ({"o": {"id": "org_1", "rol": "billing"}}, "org_1", pb.ROLE_MEMBER, ""),
        ({"org_id": "org_1"}, "org_1", pb.ROLE_OWNER, ""),
        ({"org_id": "org_1", "o": {"id": "org_1"}}, "org_1", pb.ROLE_OWNER, ""),
        ({"org_id": None}, "user_ada", pb.ROLE_OWNER, ""),
    ],
)
async def test_the_organization_is_the_account_and_its_role_is_believed(
    issuer: Issuer, said: dict[str, Any], external_id: str, role: int, slug: str
) -> None:
    token = await verifier().verify(sign(claims(**said)))
    assert (token.external_id, token.role, token.slug, token.subject) == (external_id, role, slug, "user_ada")


NOW = int(time.time())
WRONG_CLAIMS: list[dict[str, Any]] = [
    {"iss": "https://clerk.vatly.dev/"},
    {"iss": "https://clerk.evil.dev"},
    {"iss": ...},
    {"iss": [ISSUER]},
    {"sub": ...},
    {"sub": ""},
    {"sub": 7},
    {"sub": "a b"},
    {"sub": "x" * 256},
    {"exp": ...},
    {"exp": "9999999999"},
    {"exp": True},
    {"exp": None},
    {"exp": 10**400},
    {"nbf": NOW + 3600},
    {"nbf": "0"},
    {"iat": NOW + 3600},
    {"azp": "https://evil.dev"},
    {"azp": f"{APP}.evil.dev"},
    {"azp": ...},
    {"azp": [APP]},
    {"azp": {}},
    {"org_id": 7},
    {"org_id": ""},
    {"org_id": ["org_1"]},
    {"org_id": "org_1", "o": {"id": "org_2"}},
    {"org_id": "org_1", "org_role": {"admin": True}},
    {"org_role": "org:admin"},
    {"o": "org_1"},
    {"o": {}},
    {"o": {"id": {}}},
    {"o": {"rol": "admin"}},
    {"sts": "pending"},
]


@pytest.mark.parametrize("wrong", WRONG_CLAIMS, ids=str)
async def test_a_token_with_a_wrong_claim_is_refused(issuer: Issuer, wrong: dict[str, Any]) -> None:
    assert await refusal(sign(claims(**wrong))) == "token_invalid"


async def test_an_expired_token_is_told_apart_after_a_small_leeway(issuer: Issuer) -> None:
    assert await refusal(sign(claims(exp=NOW - 60))) == "token_expired"
    soon = claims(exp=int(time.time()) - 2, nbf=int(time.time()) + 2)
    assert (await verifier().verify(sign(soon))).subject == "user_ada"


async def test_aud_counts_only_where_it_is_configured(issuer: Issuer) -> None:
    for aud in (..., "https://elsewhere", ["x"]):
        assert await verifier().verify(sign(claims(aud=aud)))
    strict = verifier(clerk_audience="tollway")
    for aud in ("tollway", ["x", "tollway"]):
        assert await strict.verify(sign(claims(aud=aud)))
    for aud in (..., "tollway2", ["x"], {"tollway": 1}, 7):
        assert await refusal(sign(claims(aud=aud)), strict) == "token_invalid"


async def test_without_an_allow_list_any_party_is_taken(issuer: Issuer) -> None:
    tokens = verifier(clerk_authorized_parties="")
    for azp in (..., "https://anything.dev"):
        assert await tokens.verify(sign(claims(azp=azp)))


def _said_twice(name: str, first: str, last: str) -> str:
    """A well signed token whose header has a member twice: parsers differ in which of them counts."""
    members = {"alg": "RS256", "kid": "k1"} | {name: last}
    head = b64((json.dumps({name: first})[:-1] + ", " + json.dumps(members)[1:]).encode())
    signed = f"{head}.{b64(claims())}"
    return f"{signed}.{b64(jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(signed.encode(), KEY))}"


def forgeries() -> dict[str, str]:
    good = sign(claims())
    head, body, signature = good.split(".")
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def confused(secret: bytes, **header: Any) -> str:
        signed = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': 'k1', **header})}.{b64(claims())}"
        return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"

    curve = ec.generate_private_key(ec.SECP256R1())
    twin = {"A": "B", "Q": "R", "g": "h", "w": "x"}[signature[-1]]  # the same bytes, with a spare bit set
    return {
        "another key under the same id": sign(claims(), STRANGER),
        "alg none": f"{b64({'alg': 'none', 'kid': 'k1'})}.{body}.",
        "alg none with a signature": f"{b64({'alg': 'none', 'kid': 'k1'})}.{body}.{signature}",
        "alg None in capitals": f"{b64({'alg': 'nOnE', 'kid': 'k1'})}.{body}.{signature}",
        "HS256 over the PEM": confused(pem),
        "HS256 over the modulus": confused(base64.urlsafe_b64decode(jwk()["n"] + "==")),
        "HS256 with RS256 claimed": confused(pem, alg="RS256"),
        "ES256": jwt.encode(claims(), curve, algorithm="ES256", headers={"kid": "k1"}),
        "RS512 with the right key": jwt.encode(claims(), KEY, algorithm="RS512", headers={"kid": "k1"}),
        "PS256 with the right key": jwt.encode(claims(), KEY, algorithm="PS256", headers={"kid": "k1"}),
        "an embedded key": sign(claims(), STRANGER, jwk=jwk(STRANGER)),
        "an embedded key under a new id": sign(claims(), STRANGER, kid="k2", jwk=jwk(STRANGER, kid="k2")),
        "jku": sign(claims(), STRANGER, jku="https://evil.dev/jwks.json"),
        "x5u": sign(claims(), STRANGER, x5u="https://evil.dev/cert.pem"),
        "x5c": sign(claims(), STRANGER, x5c=["MIIB"]),
        "jku with the right key": sign(claims(), jku=f"{ISSUER}/.well-known/jwks.json"),
        "crit": sign(claims(), crit=["exp"], exp=1),
        "b64 false": sign(claims(), b64=False),
        "no kid": sign(claims(), kid=...),
        "an unknown kid": sign(claims(), kid="k9"),
        "kid no string": sign(claims(), kid=["k1"]),
        "kid an object": sign(claims(), kid={"k1": 1}),
        "typ of something else": sign(claims(), typ="dpop+jwt"),
        "typ no string": sign(claims(), typ=7),
        "another body": f"{head}.{b64(claims(sub='user_eve'))}.{signature}",
        "kid twice, ours last": _said_twice("kid", "k9", "k1"),
        "kid twice, ours first": _said_twice("kid", "k1", "k9"),
        "alg twice": _said_twice("alg", "none", "RS256"),
        "sub twice": sign(json.dumps(claims()).replace('"sub"', '"sub": "user_eve", "sub"', 1).encode()),
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "four parts": f"{good}.x",
        "padding": f"{head}.{body}.{signature}=",
        "padding in the head": f"{head}==.{body}.{signature}",
        "standard base64": f"{head}.{body}.{signature[:-4]}+/{signature[-2:]}",
        "white space": f"{head}.{body}.{signature[:10]} {signature[10:]}",
        "a line break": good + "\n",
        "spare bits set": f"{head}.{body}.{signature[:-1]}{twin}",
        "head no object": f"{b64([1])}.{body}.{signature}",
        "head no JSON": f"{b64(b'x')}.{body}.{signature}",
        "deep head": f"{b64(b'[' * 5000)}.{body}.{signature}",
        "claims no object": sign([1]),
        "claims no JSON": sign(b"x"),
        "claims no text": sign(b"\xff\xfe"),
        "deep claims": sign(b"[" * 5000),
        "very long": sign(claims(pad="x" * 20_000)),
        "empty parts": "..",
        "garbage": "eyJ.eyJ.sig",
    }


@pytest.mark.parametrize("what", list(forgeries()))
async def test_a_forged_or_broken_token_is_refused_and_nothing_that_it_names_is_fetched(
    issuer: Issuer, what: str
) -> None:
    assert await refusal(forgeries()[what]) == "token_invalid"
    assert set(issuer.fetched) <= {f"{ISSUER}/.well-known/jwks.json"}


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
async def test_no_changed_character_survives(issuer: Issuer, data: st.DataObject) -> None:
    good = sign(claims())
    at = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda character: character != good[at]))
    assert await refusal(good[:at] + other + good[at + 1 :]) == "token_invalid"


@given(
    st.text(max_size=200) | st.builds(".".join, st.lists(st.text("AQeyJz09_-=", max_size=30), min_size=3, max_size=3))
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_text_is_refused_without_another_error(issuer: Issuer, text: str) -> None:
    assert await refusal(text) == "token_invalid"


@pytest.mark.parametrize(
    "changed",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"key_ops": []},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"kty": "oct"},
        {"kty": "EC"},
        {"kid": 7},
        {"kid": ...},
        {"n": "AQAB"},
        {"n": ...},
        {"e": "AQ"},
        {"e": b64((2**64 + 1).to_bytes(9, "big"))},
        {"n": "not base64!"},
    ],
    ids=str,
)
async def test_a_key_of_another_use_kind_or_strength_verifies_nothing(issuer: Issuer, changed: dict[str, Any]) -> None:
    member = {name: value for name, value in jwk(**changed).items() if value is not ...}
    issuer.members = [member, jwk(STRANGER, kid="other")]
    assert await refusal(sign(claims())) == "token_invalid"
    assert public_keys(json.dumps({"keys": issuer.members})).keys() == {"other"}


async def test_two_keys_under_one_id_verify_nothing_and_one_key_said_twice_does(issuer: Issuer) -> None:
    for members in ([jwk(), jwk(STRANGER)], [jwk(STRANGER), jwk()]):
        issuer.members = members
        for key in (KEY, STRANGER):
            assert await refusal(sign(claims(), key)) == "token_invalid"
    issuer.members = [jwk(), jwk()]
    assert (await verifier().verify(sign(claims()))).subject == "user_ada"


def test_a_weak_key_is_left_out() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert public_keys(json.dumps({"keys": [jwk(weak)]})) == {}


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"keys": 7}', "null", "[" * 5000])
def test_what_is_no_key_set_is_unavailable_and_no_crash(text: str) -> None:
    with pytest.raises(Unavailable):
        public_keys(text)


def test_of_a_huge_key_set_only_the_first_keys_are_read() -> None:
    many = [jwk(kid=f"k{n}") for n in range(outside.MAX_KEYS + 50)]
    assert len(public_keys(json.dumps({"keys": many}))) == outside.MAX_KEYS


async def test_made_up_key_ids_cause_one_read_a_minute(issuer: Issuer) -> None:
    tokens = verifier()
    await tokens.verify(sign(claims()))
    await asyncio.gather(*(refusal(sign(claims(), kid=f"k{n}"), tokens) for n in range(2, 40)))
    assert len(issuer.fetched) == 1
    tokens._keys._read_at = tokens._keys._tried_at = time.monotonic() - outside.FLOOR_S
    await asyncio.gather(*(refusal(sign(claims(), kid=f"k{n}"), tokens) for n in range(2, 40)))
    assert len(issuer.fetched) == 2


async def test_without_an_issuer_no_token_is_any_good(issuer: Issuer) -> None:
    tokens = OutsideTokens(GatewaySettings(local=True))
    for said in (claims(), claims(iss="")):
        assert await refusal(sign(said), tokens) == "token_invalid"
    assert issuer.fetched == []


async def test_an_issuer_that_is_away_is_unavailable_and_known_keys_go_on(issuer: Issuer) -> None:
    tokens = verifier()
    issuer.down = True
    with pytest.raises(Unavailable):
        await tokens.verify(sign(claims()))
    issuer.down = False
    tokens._keys._tried_at -= 10
    assert await tokens.verify(sign(claims()))
    issuer.down = True
    tokens._keys._read_at = tokens._keys._tried_at = time.monotonic() - 1200
    assert await tokens.verify(sign(claims()))
