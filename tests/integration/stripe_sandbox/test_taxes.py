"""Automatic tax at the rate of the settings: on top or within, less discounts, on prorations and sessions too."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from .conftest import Running
from .timeline import DAY, HOUR, START, Timeline

TAXED = {"automatic_tax[enabled]": "true"}


@pytest.fixture
def ten(fresh: Timeline) -> Iterator[Timeline]:
    fresh.shop.control("PUT", "settings", {"tax_percent": "10"})
    yield fresh
    fresh.shop.control("PUT", "settings", {"tax_percent": "0"})


@pytest.mark.parametrize(
    ("behavior", "tax", "total", "bare"), [("exclusive", 150, 1650, 1500), ("inclusive", 136, 1500, 1364)]
)
def test_tax_is_on_top_or_within_the_price(ten: Timeline, behavior: str, tax: int, total: int, bare: int) -> None:
    price = ten.shop.price(1500, tax_behavior=behavior)["id"]
    subscription = ten.subscribe(price, **TAXED)
    ten.to(START + 28 * DAY + HOUR)
    for invoice in ten.invoices():
        line = invoice["lines"]["data"][0]
        assert (line["amount"], line["taxes"][0]["amount"], line["taxes"][0]["tax_behavior"]) == (1500, tax, behavior)
        assert (invoice["total_taxes"][0]["amount"], invoice["total_taxes"][0]["taxable_amount"]) == (tax, bare)
        assert (invoice["total"], invoice["total_excluding_tax"], invoice["amount_paid"]) == (total, bare, total)
    assert ten.subscription(subscription)["automatic_tax"]["enabled"] is True


def test_what_is_discounted_is_not_taxed_and_prorations_are(ten: Timeline) -> None:
    coupon = ten.shop.post("/v1/coupons", percent_off="50", duration="once")["id"]
    subscription = ten.subscribe(ten.shop.price(2800)["id"], **TAXED, **{"discounts[0][coupon]": coupon})
    assert ten.invoices()[-1]["total"] == 1540
    ten.to(START + 14 * DAY)
    item = ten.subscription(subscription)["items"]["data"][0]["id"]
    change = {"items[0][id]": item, "items[0][price]": ten.shop.price(5600)["id"]}
    ten.shop.post(f"/v1/subscriptions/{subscription}", proration_behavior="always_invoice", **change)
    last = ten.invoices()[-1]
    assert [(line["amount"], line["taxes"][0]["amount"]) for line in last["lines"]["data"]] == [
        (-700, -70),
        (2800, 280),
    ]
    assert last["amount_paid"] == 2310


def test_a_session_names_its_tax_and_the_invoice_takes_the_same(ten: Timeline) -> None:
    session = ten.shop.checkout(ten.shop.price(2900)["id"], **TAXED)
    assert (session["amount_subtotal"], session["amount_total"]) == (2900, 3190)
    assert session["total_details"]["amount_tax"] == 290
    assert "$31.90" in httpx.get(session["url"]).text
    assert ten.shop.pay(session).status_code == 303
    done = ten.shop.get(f"/v1/checkout/sessions/{session['id']}?expand[]=invoice")
    assert done["invoice"]["amount_paid"] == 3190
    assert "$2.90" in httpx.get(done["invoice"]["hosted_invoice_url"]).text


def test_nothing_is_taxed_unless_the_product_asks_for_it(ten: Timeline) -> None:
    ten.subscribe(ten.shop.price(2900)["id"])
    assert (ten.invoices()[0]["total"], ten.invoices()[0]["total_taxes"]) == (2900, [])


@pytest.mark.parametrize("percent", ["-1", "100", "ten", 10])
def test_rates_that_are_none_are_refused(shop: Running, percent: object) -> None:
    assert shop.client.put(f"{shop.url}/_sandbox/settings", json={"tax_percent": percent}).status_code == 400
