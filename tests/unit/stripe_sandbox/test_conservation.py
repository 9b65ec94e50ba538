"""Whatever plans a customer changes between, they pay for the time they had each, and a preview tells it before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import local.stripe_sandbox.api  # noqa: F401 - registers the routes
from local.stripe_sandbox.context import Context
from local.stripe_sandbox.routing import routes
from local.stripe_sandbox.sandbox import Sandbox, Settings

START, PERIOD = 1_800_000_000, 30 * 86_400
PRICES = (0, 900, 1500, 2999, 10_000)


class World:
    """Calls of the API at moments of a test clock, without a server."""

    def __init__(self, state: Path) -> None:
        self.sandbox = Sandbox(Settings(state, "http://127.0.0.1:1"))
        self.clock = self.call("POST", "/v1/test_helpers/test_clocks", frozen_time=str(START))["id"]
        product = self.call("POST", "/v1/products", name="Pro")["id"]
        self.prices = [
            self.call(
                "POST",
                "/v1/prices",
                product=product,
                currency="usd",
                unit_amount=str(amount),
                recurring={"interval": "day", "interval_count": "30"},
            )["id"]
            for amount in PRICES
        ]
        self.customer = self.call(
            "POST",
            "/v1/customers",
            test_clock=self.clock,
            payment_method="pm_card_visa",
            invoice_settings={"default_payment_method": "pm_card_visa"},
        )["id"]

    def call(self, method: str, path: str, at: int = START, /, **params: Any) -> dict[str, Any]:
        found = routes.find(method, path)
        assert found is not None, path
        route, values = found

        def work(ctx: Context) -> dict[str, Any]:
            ctx.as_of[getattr(self, "clock", "")] = at
            return route.handler(ctx, route.check(params), **values)

        return self.sandbox.run(self.sandbox.context(), work)

    def paid(self) -> int:
        return sum(i["amount_paid"] for i in self.sandbox.store.all("invoice", customer=self.customer))

    def balance(self) -> int:
        return int(self.call("GET", f"/v1/customers/{self.customer}")["balance"])


@contextmanager
def _world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        try:
            yield world
        finally:
            world.sandbox.store.close()


_CHANGES = st.lists(
    st.tuples(
        st.integers(1, PERIOD - 1),
        st.integers(0, len(PRICES) - 1),
        st.sampled_from(["always_invoice", "create_prorations"]),
    ),
    max_size=6,
)


def _in_order(changes: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    return sorted(changes, key=lambda change: change[0])


def _wanted(item: str, price: str, behavior: str) -> dict[str, Any]:
    return {"items": [{"id": item, "price": price}], "proration_behavior": behavior}


def _each(
    world: World, changes: list[tuple[int, int, str]], before: Callable[[str, str, int, dict[str, Any]], None]
) -> str:
    created = world.call(
        "POST", "/v1/subscriptions", START, customer=world.customer, items=[{"price": world.prices[1]}]
    )
    item = created["items"]["data"][0]["id"]
    for seconds, plan, behavior in _in_order(changes):
        wanted = _wanted(item, world.prices[plan], behavior)
        before(created["id"], item, START + seconds, wanted)
        world.call("POST", f"/v1/subscriptions/{created['id']}", START + seconds, **wanted)
    return str(created["id"])


@settings(max_examples=40, deadline=None)
@given(_CHANGES, st.integers(1, PERIOD))
def test_one_pays_for_the_time_one_had_each_plan(changes: list[tuple[int, int, str]], end: int) -> None:
    with _world() as world:
        changes = [change for change in changes if change[0] <= end]
        subscription = _each(world, changes, lambda *_: None)
        world.call("DELETE", f"/v1/subscriptions/{subscription}", START + end, prorate="true", invoice_now="true")
        times = [0, *(change[0] for change in _in_order(changes)), end]
        plans = [1, *(change[1] for change in _in_order(changes))]
        parts = [
            Fraction(PRICES[plan] * (until - since), PERIOD)
            for plan, (since, until) in zip(plans, pairwise(times), strict=True)
        ]
        # A negative balance is money that the customer is still owed.
        assert abs(world.paid() + world.balance() - sum(parts, Fraction(0))) <= len(changes) + 1


@settings(max_examples=25, deadline=None)
@given(_CHANGES)
def test_a_preview_tells_what_a_change_then_costs(changes: list[tuple[int, int, str]]) -> None:
    with _world() as world:

        def compare(subscription: str, item: str, at: int, wanted: dict[str, Any]) -> None:
            if wanted["proration_behavior"] != "always_invoice":
                return
            before = world.paid()
            preview = world.call(
                "POST", "/v1/invoices/create_preview", at, subscription=subscription, subscription_details=wanted
            )
            assert world.paid() == before
            world.call("POST", f"/v1/subscriptions/{subscription}", at, **wanted)
            if preview["billing_reason"] == "subscription_update":
                assert world.paid() == before + preview["amount_due"]

        _each(world, changes, compare)
