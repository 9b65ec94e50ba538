"""Local mode's issuer of outside tokens: what it signs the gateway takes, and only this machine's programs may ask."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import outside
from gateway.outside import OutsideTokens
from gateway.problems import Problem
from gateway.settings import GatewaySettings
from local.clerk import Issuer, Refused, application, load_key, wanted
from tollway.billing.v1 import auth_pb2 as pb

URL, PARTY = "http://127.0.0.1:12112", "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(URL, load_key(tmp_path_factory.mktemp("clerk") / "key.pem"), PARTY)


@pytest.fixture
def tokens(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> OutsideTokens:
    async def fetch(_: str) -> str:
        return json.dumps(issuer.jwks())

    monkeypatch.setattr(outside, "fetch", fetch)
    return OutsideTokens(GatewaySettings(local=True, clerk_issuer=URL, clerk_authorized_parties=PARTY))


async def test_the_gateway_takes_its_tokens(issuer: Issuer, tokens: OutsideTokens) -> None:
    alone = await tokens.verify(issuer.token("user_1", "", "admin", 60))
    assert (alone.external_id, alone.role) == ("user_1", pb.ROLE_OWNER)
    admin = await tokens.verify(issuer.token("user_1", "Acme.Inc", "admin", 60))
    assert (admin.external_id, admin.role, admin.slug) == ("org_Acme.Inc", pb.ROLE_ADMIN, "acme-inc")
    member = await tokens.verify(issuer.token("user_1", "org_acme", "member", 60))
    assert (member.external_id, member.role, member.slug) == ("org_acme", pb.ROLE_MEMBER, "acme")


async def test_a_token_made_to_be_late_is_late(issuer: Issuer, tokens: OutsideTokens) -> None:
    with pytest.raises(Problem) as caught:
        await tokens.verify(issuer.token("user_1", "", "admin", -60))
    assert caught.value.code == "token_expired"


def test_the_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "clerk" / "key.pem"
    first, second = load_key(path), load_key(path)
    assert first.private_numbers() == second.private_numbers()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "body",
    [[], "x", {"usr": "x"}, {"user": ""}, {"user": 7}, {"user": "a b"}, {"org": "x" * 256}, {"role": ""}]
    + [{"expires_in": value} for value in ("60", True, 1.5, 10**9)],
    ids=str,
)
def test_what_cannot_be_is_refused(body: Any) -> None:
    with pytest.raises(Refused):
        wanted(body)


async def _ask(issuer: Issuer, content: bytes = b"{}", **headers: str) -> int:
    transport = httpx.ASGITransport(application(issuer, 12112))
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        sent = {"Content-Type": "application/json"} | headers
        return (await client.post("/token", content=content, headers=sent)).status_code


async def test_a_web_page_cannot_ask_for_a_token(issuer: Issuer) -> None:
    assert await _ask(issuer) == 200
    assert await _ask(issuer, Host="evil.example:12112") == 403
    assert await _ask(issuer, **{"Content-Type": "text/plain"}) == 415  # else no preflight would stand before it
    for content in (b"", b"x", b"[" * 5000, b"\xff"):
        assert await _ask(issuer, content) == 422
