"""Whatever plans a customer changes between, they pay for the time they had each, and a preview tells it before."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from .world import START, World, world

PERIOD = 30 * 86_400
PRICES = (0, 900, 1500, 2999, 10_000)


def _plans(shop: World) -> list[str]:
    return [shop.price(amount) for amount in PRICES]


def _paid(shop: World) -> int:
    return sum(invoice["amount_paid"] for invoice in shop.all("invoice"))


def _balance(shop: World) -> int:
    return int(shop.call("GET", f"/v1/customers/{shop.customer}")["balance"])


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
    shop: World, changes: list[tuple[int, int, str]], before: Callable[[str, str, int, dict[str, Any]], None]
) -> str:
    plans = _plans(shop)
    created = shop.call("POST", "/v1/subscriptions", START, customer=shop.customer, items=[{"price": plans[1]}])
    item = created["items"]["data"][0]["id"]
    for seconds, plan, behavior in _in_order(changes):
        wanted = _wanted(item, plans[plan], behavior)
        before(created["id"], item, START + seconds, wanted)
        shop.call("POST", f"/v1/subscriptions/{created['id']}", START + seconds, **wanted)
    return str(created["id"])


@settings(max_examples=40, deadline=None)
@given(_CHANGES, st.integers(1, PERIOD))
def test_one_pays_for_the_time_one_had_each_plan(changes: list[tuple[int, int, str]], end: int) -> None:
    with world() as shop:
        changes = [change for change in changes if change[0] <= end]
        subscription = _each(shop, changes, lambda *_: None)
        shop.call("DELETE", f"/v1/subscriptions/{subscription}", START + end, prorate="true", invoice_now="true")
        times = [0, *(change[0] for change in _in_order(changes)), end]
        plans = [1, *(change[1] for change in _in_order(changes))]
        parts = [
            Fraction(PRICES[plan] * (until - since), PERIOD)
            for plan, (since, until) in zip(plans, pairwise(times), strict=True)
        ]
        # A negative balance is money that the customer is still owed.
        assert abs(_paid(shop) + _balance(shop) - sum(parts, Fraction(0))) <= len(changes) + 1


@settings(max_examples=25, deadline=None)
@given(_CHANGES)
def test_a_preview_tells_what_a_change_then_costs(changes: list[tuple[int, int, str]]) -> None:
    with world() as shop:

        def compare(subscription: str, item: str, at: int, wanted: dict[str, Any]) -> None:
            if wanted["proration_behavior"] != "always_invoice":
                return
            before = _paid(shop)
            preview = shop.call(
                "POST", "/v1/invoices/create_preview", at, subscription=subscription, subscription_details=wanted
            )
            assert _paid(shop) == before
            shop.call("POST", f"/v1/subscriptions/{subscription}", at, **wanted)
            if preview["billing_reason"] == "subscription_update":
                assert _paid(shop) == before + preview["amount_due"]

        _each(shop, changes, compare)
