"""A year of a product, driven by the clock: everything adds up, every object has its documented shape, in seconds."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

import httpx

from local.stripe_sandbox.lists import render

from .conftest import CARD, Receiver, Running
from .stripe_schema import check

DAY = 86_400
# Kinds that are the sandbox's own or have no class in the library's first version of the API.
_UNCHECKED = {"challenge", "v2.core.event"}


def _every_object(shop: Running) -> list[dict[str, Any]]:
    with sqlite3.connect(shop.state / "stripe.sqlite3") as db:
        return [json.loads(row[0]) for row in db.execute("SELECT body FROM objects")]


def test_a_year_of_a_metered_product_adds_up_in_seconds(own: Running, receiver: Receiver) -> None:
    meter = own.post(
        "/v1/billing/meters",
        display_name="Downloads",
        event_name="downloads",
        **{"default_aggregation[formula]": "sum"},
    )
    overage = own.post(
        "/v1/prices",
        product=own.post("/v1/products", name="Downloads")["id"],
        currency="usd",
        billing_scheme="tiered",
        tiers_mode="graduated",
        **{
            "recurring[interval]": "month",
            "recurring[usage_type]": "metered",
            "recurring[meter]": meter["id"],
            "tiers[0][up_to]": "1000",
            "tiers[0][unit_amount]": "0",
            "tiers[1][up_to]": "inf",
            "tiers[1][unit_amount_decimal]": "0.1",
        },
    )["id"]
    coupon = own.post("/v1/coupons", percent_off="50", duration="once")["id"]
    own.post("/v1/promotion_codes", code="HALF", **{"promotion[type]": "coupon", "promotion[coupon]": coupon})
    base = own.price(1500)["id"]
    session = own.checkout(
        base,
        allow_promotion_codes="true",
        **{"line_items[1][price]": overage, "subscription_data[trial_period_days]": "14"},
    )
    httpx.post(f"{session['url']}/promotion", data={"promotionCode": "half"})
    assert own.pay(session).status_code == 303
    done = own.get(f"/v1/checkout/sessions/{session['id']}?expand[]=subscription")
    customer, subscription = done["customer"], done["subscription"]["id"]
    began = time.monotonic()
    used: list[int] = []
    own.advance(to=done["subscription"]["trial_end"] + 7200)
    for month in range(12):
        if month == 5:
            bad = own.post("/v1/payment_methods/pm_card_chargeCustomerFail/attach", customer=customer)["id"]
            own.post(f"/v1/subscriptions/{subscription}", default_payment_method=bad)
        found = own.get(f"/v1/subscriptions/{subscription}")
        used.append(900 + 77 * month)
        given = {"payload[stripe_customer_id]": customer, "payload[value]": str(used[-1])}
        own.post("/v1/billing/meter_events", event_name="downloads", identifier=f"use-{month}", **given)
        own.advance(to=found["items"]["data"][0]["current_period_end"] + 7200)
        if month == 5:
            assert own.get(f"/v1/subscriptions/{subscription}")["status"] == "past_due"
            portal = own.post("/v1/billing_portal/sessions", customer=customer)["url"]
            assert "Past due" in httpx.get(portal).text
            httpx.post(f"{portal}/card", data={**CARD, "cardNumber": "5555 5555 5555 4444"})
        assert own.get(f"/v1/subscriptions/{subscription}")["status"] == "active"
    own.drain(30)
    assert time.monotonic() - began < 20
    invoices = own.get(f"/v1/invoices?customer={customer}&limit=100")["data"][::-1]
    assert {invoice["status"] for invoice in invoices} == {"paid"}
    over = [max(0, units - 1000) for units in used]
    # The coupon is for the first charge: the trial's invoice, of nothing, is none.
    assert [invoice["amount_paid"] for invoice in invoices] == [0, 750] + [1500 + (10 * n + 50) // 100 for n in over]
    charged = sum(charge["amount_captured"] for charge in own.get("/v1/charges?limit=100")["data"])
    assert charged == sum(invoice["amount_paid"] for invoice in invoices)
    assert len(receiver.of("invoice.paid")) == len(invoices)
    for obj in _every_object(own):
        if obj["object"] not in _UNCHECKED:
            check(json.loads(json.dumps(render_plain(obj))))


def render_plain(obj: dict[str, Any]) -> dict[str, Any]:
    return render(None, obj, [])  # type: ignore[arg-type]  # expands nothing, so needs no context
