"""Random lives of subscriptions at Stripe, whose webhooks come twice, in another order, late or not at all, to two
replicas of billing on one database: after healing and reconciliation local state is Stripe's.

TOLLWAY_LIVES is how many stories are tried (6).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.e2e.replica import second_replica
from tests.e2e.vatly import BUSINESS, SCALE, price_id
from tests.e2e.world import Customer, Json, World
from tests.infra.servers import running_nats
from tests.infra.stack import Stack, running_stack
from tests.invariants import healed

Story = list[tuple[str, list[tuple[int, str]]]]
STORIES = int(os.environ.get("TOLLWAY_LIVES") or 6)
_DAY = 86_400
_LIVE = {"active", "trialing", "past_due", "unpaid", "paused", "incomplete"}

# What happens on the way from Stripe to us, until something else does.
WEATHER: dict[str, Json] = {
    "calm": {},
    "twice": {"duplicate": True},
    "shuffled": {"reorder": True, "webhook_jitter_ms": 300},
    "twice and shuffled": {"duplicate": True, "reorder": True},
    "late": {"webhook_delay_ms": 700},
    "invoices lost": {"drop": ["invoice.*"]},
    "subscriptions lost": {"drop": ["customer.subscription.*", "checkout.*"]},
    "all lost": {"drop": ["*"]},
    "a few lost": {"drop_next": 5},
    "reads fail": {"api_errors": [{"status": 500, "path": "/v1/subscriptions", "method": "GET", "next": 4}]},
    "too many calls": {"api_errors": [{"status": 429, "path": "/v1/", "method": "GET", "next": 6}]},
    "answers lost": {"api_errors": [{"status": "cut", "path": "/v1/", "next": 4, "after": True}]},
}
ACTIONS = (
    "subscribe",
    "subscribe",
    "subscribe to scale",
    "trial",
    "second subscription",
    "upgrade",
    "downgrade",
    "upgrade by api",
    "card fails",
    "card works",
    "pay",
    "cancel at the end",
    "resume",
    "cancel",
    "refund",
    "a few days",
    "a month",
    "a month",
)
_STORMS = ("all lost", "subscriptions lost", "invoices lost")  # after which nothing but reconciliation helps
weather = st.sampled_from([*WEATHER, *_STORMS, *_STORMS])
doing = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(ACTIONS)), min_size=1, max_size=6)
# What happens to which of two accounts while the way is so; and the last of it is not followed by a calm day.
stories = st.lists(st.tuples(weather, doing), min_size=1, max_size=4)


@dataclass
class Life:
    """One account, and what a person, the seller or time does with it."""

    world: World
    doors: tuple[str, str]  # of the two replicas
    prices: dict[str, str]
    customer: Customer
    stripe_id: str = ""
    asked: int = 0
    done: list[str] = field(default_factory=list)

    async def begin(self) -> None:
        """It has been at the checkout once, so that Stripe knows it."""
        await self.api("/v1/billing/checkout", {"tier": "business"})
        self.stripe_id = await self.customer.stripe_id()

    async def api(self, path: str, body: Json) -> httpx.Response:
        """Asks one replica, then the other."""
        self.asked += 1
        door = self.doors[self.asked % 2]
        answer = await self.world.gateway.post(f"{door}{path}", json=body, headers=self.customer.bearer)
        assert answer.status_code in {200, 402, 409, 503}, answer.text
        return answer

    async def stripe(self, method: str, path: str, **form: Any) -> Json | None:
        """None: Stripe refused, as it does when a thing is over."""
        while True:
            try:
                key = {"Authorization": f"Bearer {self.world.env['STRIPE_API_KEY']}"}
                query, data = (form, None) if method == "GET" else (None, form)
                sent = self.world.sandbox.request(method, f"/v1/{path}", params=query, data=data, headers=key)
                answer = await sent
            except httpx.RemoteProtocolError:
                continue  # a fault that was meant for billing
            if answer.status_code == 429 or answer.status_code >= 500:
                continue
            found: Json = answer.json()
            return found if answer.status_code == 200 else None

    async def subscriptions(self) -> list[Json]:
        page = await self.stripe("GET", "subscriptions", customer=self.stripe_id, status="all", limit=100)
        assert page is not None
        return [each for each in page["data"] if each["status"] in _LIVE]

    async def act(self, action: str) -> None:
        if action in {"subscribe", "subscribe to scale"}:
            await self._buy("scale" if action.endswith("scale") else "business")
            return
        if action in {"card fails", "card works"}:
            await self._card("pm_card_chargeCustomerFail" if action == "card fails" else "pm_card_visa")
            return
        live = await self.subscriptions()
        if action in {"trial", "second subscription"}:
            await self._given(trial=action == "trial", more=len(live) < 2)
        elif action == "refund":
            page = await self.stripe("GET", "invoices", customer=self.stripe_id, status="paid", limit=1)
            for invoice in page["data"] if page else []:
                await self.world.sandbox.post("/_sandbox/refunds", json={"invoice": invoice["id"]})
        elif action == "pay":
            page = await self.stripe("GET", "invoices", customer=self.stripe_id, status="open")
            for invoice in page["data"] if page else []:
                await self.stripe("POST", f"invoices/{invoice['id']}/pay")
        elif live:
            await self._change(live[0], action)

    async def _buy(self, tier: str) -> None:
        answer = await self.api("/v1/billing/checkout", {"tier": tier})
        if answer.status_code == 200:
            await self.customer.pay(answer.json()["checkout_url"])

    async def _card(self, name: str) -> None:
        card = await self.stripe("POST", f"payment_methods/{name}/attach", customer=self.stripe_id)
        if card is None:
            return
        default = {"invoice_settings[default_payment_method]": card["id"]}
        await self.stripe("POST", f"customers/{self.stripe_id}", **default)
        for each in await self.subscriptions():
            await self.stripe("POST", f"subscriptions/{each['id']}", default_payment_method=card["id"])

    async def _given(self, *, trial: bool, more: bool) -> None:
        """In Stripe's dashboard, which knows nothing of one subscription per account."""
        if more:
            form = {"items[0][price]": self.prices["business"], "payment_behavior": "allow_incomplete"}
            await self.stripe(
                "POST", "subscriptions", customer=self.stripe_id, **form, **({"trial_period_days": 10} if trial else {})
            )

    async def _change(self, subscription: Json, action: str) -> None:
        path = f"subscriptions/{subscription['id']}"
        if action in {"upgrade", "downgrade"}:
            item = subscription["items"]["data"][0]["id"]
            price = self.prices["scale" if action == "upgrade" else "business"]
            form = {"items[0][id]": item, "items[0][price]": price, "proration_behavior": "always_invoice"}
            await self.stripe("POST", path, **form)
        elif action == "upgrade by api":
            await self.api(f"/v1/orgs/{self.customer.account['slug']}/billing/change", {"tier": "scale"})
        elif action == "cancel":
            await self.stripe("DELETE", path)
        elif action in {"cancel at the end", "resume"}:
            await self.stripe("POST", path, cancel_at_period_end=str(action != "resume").lower())


@pytest.fixture(scope="module")
def system(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, str]]:
    folder = tmp_path_factory.mktemp("lives")
    given_ = {
        "CATALOG": str(Path("catalogs/vatly.yaml").resolve()),
        "TOLLWAY_SIGNUP_PER_ADDRESS": "100000",
        # Failures are tried again soon: the stories are about what follows, not about how long that takes.
        "TOLLWAY_STRIPE_RATE": "200",
    }
    with (
        running_nats(folder) as nats,
        running_stack(folder, postgres=postgres, nats=nats, env=given_) as stack,
        second_replica(stack) as other,
    ):
        yield stack, other


@settings(
    max_examples=STORIES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(story=stories)
def test_whatever_happens_at_stripe_and_on_the_way_two_replicas_end_with_stripes_state(
    system: tuple[Stack, str], story: Story
) -> None:
    asyncio.run(_play(*system, story))


async def _play(stack: Stack, other: str, story: Story) -> None:
    world = World(stack)
    try:
        prices = {"business": await price_id(world, BUSINESS), "scale": await price_id(world, SCALE)}
        customers = await asyncio.gather(*(world.sign_up(name) for name in ("Ada", "Grace")))
        lives = [Life(world, (stack.gateway_url, other), prices, customer) for customer in customers]
        await asyncio.gather(*(life.begin() for life in lives))
        for sky, actions in story:
            await world.knobs(reset=True, **WEATHER[sky])
            for who, what in actions:
                if what in {"a few days", "a month"}:
                    await _advance(world, 4 if what == "a few days" else 32)
                else:
                    await lives[who].act(what)
        await _heal(world, lives)
        found = await healed(stack, within=40)
        note("\n".join(found))
        assert found == []
        await _end(lives)
    finally:
        await world.knobs(reset=True)
        await world.close()


async def _advance(world: World, days: int) -> None:
    to = await world.now() + days * _DAY
    answer = await world.sandbox.post("/_sandbox/clock/advance", json={"to": to})
    assert answer.status_code == 200, answer.text


async def _heal(world: World, lives: list[Life]) -> None:
    """The way is calm again; what is pending arrives, and what was lost is looked for."""
    await world.knobs(reset=True)
    await world.drained()
    operator = {"Authorization": f"Bearer {world.stack.operator_token}"}
    for body in ({}, *({"account_id": life.customer.id} for life in lives)):
        answer = await world.gateway.post("/v1/operator/reconcile", json=body, headers=operator)
        assert answer.status_code == 200, answer.text


async def _end(lives: list[Life]) -> None:
    """Later stories' months must not renew these."""
    for life in lives:
        for each in await life.subscriptions():
            await life.stripe("DELETE", f"subscriptions/{each['id']}")
