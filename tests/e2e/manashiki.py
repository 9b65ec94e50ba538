"""Organizations of Manashiki's catalog, and what they do with their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from local.blocking import run_apart
from tests.e2e.world import Customer, Json, World, until
from tests.infra.servers import running_nats
from tests.infra.stack import Stack, running_stack
from tests.invariants import healed

CONTACT = "mailto:contact@utakata-scifi.com"


class Org:
    """An organization, with the test key of its sign-up; in local mode that key is its owner's."""

    def __init__(self, customer: Customer) -> None:
        self.customer = customer
        self.world = customer.world
        self.slug: str = customer.account["slug"]
        self.test_key = customer.key
        self.live_key = ""

    @property
    def billing_page(self) -> str:
        return f"{self.world.stack.gateway_url}/dash/{self.slug}/billing"

    async def call(
        self, method: str, path: str, body: Json | None = None, key: str = "", **more: str
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.test_key}", **more}
        return await self.world.gateway.request(method, path, json=body, headers=headers)

    async def download(self, key: str = "", name: str = "models/base.bin", **more: str) -> httpx.Response:
        return await self.call("POST", "/api/download", {"object": name}, key, **more)

    async def downloaded(self, key: str = "") -> str:
        """A download that is granted; its requestId."""
        answer = await self.download(key)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["requestId"])

    async def release(self, request_id: str, key: str = "") -> httpx.Response:
        return await self.call("DELETE", f"/api/download/lease/{request_id}", key=key)

    async def status(self) -> Json:
        answer = await self.call("GET", f"/v1/orgs/{self.slug}/billing/status")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def guardrails(self) -> Json:
        return dict((await self.status())["downloadGuardrails"])

    async def cap(self, limit: int | None, **more: bool) -> httpx.Response:
        path = f"/v1/orgs/{self.slug}/caps/live_downloads"
        return await self.call("PUT", path, {"limit": limit, **more})

    async def upgrade(self) -> None:
        """Pays for Developer, waits until billing and quota have heard, and issues a live key."""
        opened = await self.call("POST", f"/v1/orgs/{self.slug}/billing/checkout")
        assert opened.status_code == 200, opened.text
        assert (await self.customer.pay(opened.json()["url"])).status_code == 303
        await self.becomes("paid")
        made = await self.call("POST", f"/v1/orgs/{self.slug}/keys", {"kind": "live", "name": "production"})
        assert made.status_code == 201, made.text
        self.live_key = made.json()["api_key"]

    async def becomes(self, tier: str) -> None:
        """Waits until billing and quota both act on the tier."""
        await until(self.status, lambda status: status["tier"] == tier)
        await until(self.usage, lambda usage: usage["tier"] == tier)

    async def usage(self) -> Json:
        answer = await self.call("GET", "/v1/usage")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


async def sign_up(world: World, name: str = "Yuki Tanaka") -> Org:
    return Org(await world.sign_up(name))


async def developer(world: World, name: str = "Yuki Tanaka") -> Org:
    """An organization on paid, with a live key."""
    org = await sign_up(world, name)
    await org.upgrade()
    return org


@pytest.fixture(scope="module")
def manashiki(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A system of its own with Manashiki's catalog; what its databases hold must not contradict itself afterwards."""
    folder = tmp_path_factory.mktemp("manashiki")
    given = {"CATALOG": "catalogs/manashiki.yaml"}
    with running_nats(folder) as nats, running_stack(folder, postgres=postgres, nats=nats, env=given) as running:
        yield running
        found = run_apart(healed(running))
        assert not found, "\n".join(found)


@pytest.fixture
async def world(manashiki: Stack) -> AsyncIterator[World]:
    found = World(manashiki)
    yield found
    await found.knobs(reset=True)
    await found.close()
