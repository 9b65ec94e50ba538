"""Accounts of Vatly's catalog: people and organizations that the identity provider vouches for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from local.blocking import run_apart
from tests.e2e.world import PAYS, Json, World, until
from tests.infra.servers import running_nats
from tests.infra.stack import Stack, running_stack
from tests.invariants import healed

BUSINESS, SCALE = "vatly_business_month", "vatly_scale_month"


class Member:
    """Somebody with a token of the identity provider, in an organization or alone."""

    def __init__(self, world: World, token: str) -> None:
        self.world = world
        self.token = token
        self.key = ""

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        return await self.world.gateway.request(method, path, json=body, headers=sent)

    async def subscription(self) -> Json:
        answer = await self.call("GET", "/admin/billing/subscription")
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    async def checkout(self, lookup_key: str = BUSINESS, **more: str) -> httpx.Response:
        body = {"price_id": await price_id(self.world, lookup_key), **more}
        return await self.call("POST", "/admin/billing/checkout", body)

    async def portal(self) -> str:
        answer = await self.call("POST", "/admin/billing/portal")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["url"])

    async def pay(self, page: str, card: str = PAYS) -> httpx.Response:
        form = {"email": "ada@example.com", "cardNumber": card, "cardExpiry": "12 / 34", "cardCvc": "123"}
        return await self.world.sandbox.post(page, data=form | {"billingName": "Ada Lovelace"})

    async def subscribe(self, lookup_key: str = BUSINESS) -> Json:
        """Pays; the subscription as the API tells it once it knows."""
        opened = await self.checkout(lookup_key)
        assert opened.status_code == 201, opened.text
        assert (await self.pay(opened.json()["data"]["url"])).status_code == 303
        return await until(self.subscription, lambda now: now["subscription_status"] == "active")

    async def becomes(self, tier: str, status: str = "active") -> Json:
        return await until(self.subscription, lambda now: (now["tier"], now["subscription_status"]) == (tier, status))

    async def issue_key(self) -> str:
        """An API key of the account, for its requests."""
        (org,) = (await self.call("GET", "/v1/orgs")).json()["orgs"]
        made = await self.call("POST", f"/v1/orgs/{org['slug']}/keys", {"kind": "live", "name": "production"})
        assert made.status_code == 201, made.text
        self.key = made.json()["api_key"]
        return self.key

    async def usage(self) -> Json:
        answer = await self.world.gateway.get("/v1/usage", headers={"Authorization": f"Bearer {self.key}"})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def validate(self, amount: int = 1) -> httpx.Response:
        """Counts requests."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return await self.world.gateway.post("/v1/usage", json={"meter": "requests", "amount": amount}, headers=headers)


async def token(world: World, user: str, org: str = "", role: str = "admin", expires_in: int = 3600) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        asked = {"user": user, "org": org, "role": role, "expires_in": expires_in}
        answer = await client.post(f"{world.stack.issuer_url}/token", json=asked)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


async def member(world: World, user: str, org: str = "", role: str = "admin") -> Member:
    return Member(world, await token(world, user, org, role))


async def price_id(world: World, lookup_key: str) -> str:
    plans = (await world.gateway.get("/v1/plans")).json()["plans"]
    (found,) = (price["id"] for plan in plans for price in plan["prices"] if price["lookup_key"] == lookup_key)
    return str(found)


@pytest.fixture(scope="module")
def vatly(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A system of its own with Vatly's catalog; what its databases hold must not contradict itself afterwards."""
    folder = tmp_path_factory.mktemp("vatly")
    given = {"CATALOG": "catalogs/vatly.yaml"}
    with running_nats(folder) as nats, running_stack(folder, postgres=postgres, nats=nats, env=given) as running:
        yield running
        found = run_apart(healed(running))
        assert not found, "\n".join(found)


@pytest.fixture
async def world(vatly: Stack) -> AsyncIterator[World]:
    found = World(vatly)
    yield found
    await found.knobs(reset=True)
    await found.close()
