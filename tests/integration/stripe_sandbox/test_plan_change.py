"""Changing plans: prorations to the cent and second, what is invoiced when, and previews that tell it beforehand."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from .conftest import Running
from .timeline import DAY, HOUR, START, Timeline


def _item(life: Timeline, subscription: str) -> dict[str, Any]:
    item: dict[str, Any] = life.subscription(subscription)["items"]["data"][0]
    return item


def _change(life: Timeline, subscription: str, price: str, **more: str) -> dict[str, Any]:
    given = {"items[0][id]": _item(life, subscription)["id"], "items[0][price]": price}
    return life.shop.post(f"/v1/subscriptions/{subscription}", **given, **more)


def _preview(life: Timeline, subscription: str, **details: str) -> dict[str, Any]:
    given = {f"subscription_details{name}": value for name, value in details.items()}
    return life.shop.post("/v1/invoices/create_preview", subscription=subscription, **given)


def _amounts(invoice: dict[str, Any]) -> list[int]:
    return [line["amount"] for line in invoice["lines"]["data"]]


def _share(amount: int, item: dict[str, Any], at: int) -> int:
    """Stripe's rule, stated once more: seconds left over seconds of the period, half up."""
    begin, end = item["current_period_start"], item["current_period_end"]
    return int((Decimal(amount) * (end - at) / (end - begin)).quantize(Decimal(1), ROUND_HALF_UP))


@pytest.mark.parametrize(("old", "new"), [(1900, 7900), (7900, 1900), (999, 1001)])
@pytest.mark.parametrize("seconds", [1, 7 * DAY + 12_345, 28 * DAY - 1])
def test_a_change_credits_and_charges_the_seconds_that_are_left(
    fresh: Timeline, old: int, new: int, seconds: int
) -> None:
    subscription = fresh.subscribe(fresh.shop.price(old)["id"])
    before = _item(fresh, subscription)
    fresh.to(START + seconds)
    changed = _change(fresh, subscription, fresh.shop.price(new)["id"])
    after = changed["items"]["data"][0]
    assert (after["current_period_start"], after["current_period_end"]) == (START, before["current_period_end"])
    pending = fresh.shop.get(f"/v1/invoiceitems?customer={fresh.customer}&pending=true")["data"][::-1]
    assert [item["amount"] for item in pending] == [
        -_share(old, before, START + seconds),
        _share(new, before, START + seconds),
    ]
    assert {item["proration"] for item in pending} == {True}
    assert {item["period"]["start"] for item in pending} == {START + seconds}
    assert {item["period"]["end"] for item in pending} == {before["current_period_end"]}


def test_a_downgrade_leaves_a_balance_that_the_next_invoices_use(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(9000)["id"])
    before = _item(fresh, subscription)
    middle = (START + before["current_period_end"]) // 2
    fresh.to(middle)
    _change(fresh, subscription, fresh.shop.price(1000)["id"], proration_behavior="always_invoice")
    credit = fresh.invoices()[-1]
    assert (credit["total"], credit["amount_due"], credit["ending_balance"]) == (-4000, 0, -4000)
    assert credit["status"] == "paid"
    assert fresh.shop.get(f"/v1/customers/{fresh.customer}")["balance"] == -4000
    fresh.to(before["current_period_end"] + HOUR)
    renewal = fresh.invoices()[-1]
    assert (renewal["total"], renewal["starting_balance"], renewal["amount_due"]) == (1000, -4000, 0)
    assert (renewal["ending_balance"], renewal["status"]) == (-3000, "paid")
    moves = fresh.shop.get(f"/v1/customers/{fresh.customer}/balance_transactions")["data"]
    assert [(move["amount"], move["ending_balance"]) for move in moves] == [(1000, -3000), (-4000, -4000)]


def test_without_proration_nothing_is_billed_until_the_renewal(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(1000)["id"])
    end = _item(fresh, subscription)["current_period_end"]
    fresh.to(START + 10 * DAY)
    _change(fresh, subscription, fresh.shop.price(3000)["id"], proration_behavior="none")
    assert fresh.shop.get(f"/v1/invoiceitems?customer={fresh.customer}&pending=true")["data"] == []
    fresh.to(end + HOUR)
    assert [_amounts(invoice) for invoice in fresh.invoices()] == [[1000], [3000]]


def test_a_plan_taken_without_proration_is_credited_by_what_was_billed(fresh: Timeline) -> None:
    small, big = fresh.shop.price(1000)["id"], fresh.shop.price(3000)["id"]
    subscription = fresh.subscribe(small)
    before = _item(fresh, subscription)
    fresh.to(START + 10 * DAY)
    _change(fresh, subscription, big, proration_behavior="none")
    _change(fresh, subscription, small)
    pending = fresh.shop.get(f"/v1/invoiceitems?customer={fresh.customer}&pending=true")["data"][::-1]
    part = _share(1000, before, START + 10 * DAY)
    assert [item["amount"] for item in pending] == [-part, part]


def test_setting_the_anchor_to_now_starts_a_new_period_at_once(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(1000)["id"])
    before = _item(fresh, subscription)
    fresh.to(START + 7 * DAY)
    changed = _change(fresh, subscription, fresh.shop.price(3000)["id"], **{"billing_cycle_anchor[type]": "now"})
    item = changed["items"]["data"][0]
    assert (changed["billing_cycle_anchor"], item["current_period_start"]) == (START + 7 * DAY, START + 7 * DAY)
    assert _amounts(fresh.invoices()[-1]) == [-_share(1000, before, START + 7 * DAY), 3000]
    assert fresh.invoices()[-1]["status"] == "paid"


def test_the_same_plan_again_changes_and_bills_nothing(fresh: Timeline) -> None:
    price = fresh.shop.price(1000)["id"]
    subscription = fresh.subscribe(price)
    fresh.to(START + DAY)
    _change(fresh, subscription, price, proration_behavior="always_invoice")
    assert len(fresh.invoices()) == 1
    assert fresh.events(type="customer.subscription.updated") == []


def test_more_seats_are_charged_for_the_rest_of_the_period(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(500)["id"], **{"items[0][quantity]": "2"})
    before = _item(fresh, subscription)
    fresh.to(START + 14 * DAY)
    fresh.shop.post(
        f"/v1/subscriptions/{subscription}",
        proration_behavior="always_invoice",
        **{"items[0][id]": before["id"], "items[0][quantity]": "5"},
    )
    assert _amounts(fresh.invoices()[-1]) == [-500, 1250]  # 14 of 28 days


def test_a_change_in_a_trial_is_free_and_keeps_the_trials_end(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(1000)["id"], trial_period_days="14")
    fresh.to(START + 5 * DAY)
    changed = _change(fresh, subscription, fresh.shop.price(30_000, "year")["id"], proration_behavior="always_invoice")
    assert (changed["status"], changed["trial_end"]) == ("trialing", START + 14 * DAY)
    assert changed["items"]["data"][0]["current_period_end"] == START + 14 * DAY
    assert [invoice["total"] for invoice in fresh.invoices()] == [0]
    fresh.to(START + 14 * DAY + HOUR)
    assert fresh.invoices()[-1]["amount_paid"] == 30_000


def test_a_change_whose_charge_fails_is_refused_whole_or_leaves_the_subscription_past_due(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(1000)["id"])
    item = _item(fresh, subscription)
    big = fresh.shop.price(3000)["id"]
    fresh.use("pm_card_chargeCustomerFail")
    given = {"items[0][id]": item["id"], "items[0][price]": big, "proration_behavior": "always_invoice"}
    path = f"/v1/subscriptions/{subscription}"
    error = fresh.shop.refused(path, 402, **given, payment_behavior="error_if_incomplete")
    assert error["code"] == "card_declined"
    assert _item(fresh, subscription)["price"]["id"] == item["price"]["id"]
    assert len(fresh.invoices()) == 1
    assert fresh.shop.post(path, **given)["items"]["data"][0]["price"]["id"] == big
    assert fresh.subscription(subscription)["status"] == "past_due"
    assert fresh.invoices()[-1]["status"] == "open"


@pytest.mark.parametrize("behavior", ["always_invoice", "create_prorations", "none"])
def test_a_preview_is_the_invoice_that_the_change_then_makes_and_changes_nothing(
    fresh: Timeline, behavior: str
) -> None:
    big = fresh.shop.price(7900)["id"]
    subscription = fresh.subscribe(fresh.shop.price(1900)["id"])
    item = _item(fresh, subscription)
    fresh.to(START + 9 * DAY + 321)
    before = (fresh.subscription(subscription), fresh.invoices(), fresh.events())
    wanted = {"[items][0][id]": item["id"], "[items][0][price]": big, "[proration_behavior]": behavior}
    preview = _preview(fresh, subscription, **wanted)
    assert preview["id"].startswith("upcoming_in_")
    assert (preview["status"], preview["number"], preview["customer"]) == ("draft", None, fresh.customer)
    assert (fresh.subscription(subscription), fresh.invoices(), fresh.events()) == before
    assert fresh.shop.get(f"/v1/invoiceitems?customer={fresh.customer}")["data"] == []
    at = str(START + 9 * DAY + 321)
    fresh.to(START + 9 * DAY + 400)
    _change(
        fresh, subscription, big, proration_behavior=behavior, **({"proration_date": at} if behavior != "none" else {})
    )
    if behavior != "always_invoice":
        fresh.to(item["current_period_end"] + HOUR)
    made = fresh.invoices()[-1]
    for field in ("subtotal", "total", "amount_due", "billing_reason", "period_start"):
        if behavior != "always_invoice" or field != "period_start":
            assert preview[field] == made[field], field
    shown = [(line["amount"], line["description"], line["period"]) for line in preview["lines"]["data"]]
    assert shown == [(line["amount"], line["description"], line["period"]) for line in made["lines"]["data"]]


def test_a_preview_without_changes_is_the_next_renewal(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2900)["id"])
    end = _item(fresh, subscription)["current_period_end"]
    preview = _preview(fresh, subscription)
    assert (preview["amount_due"], preview["created"], preview["period_end"]) == (2900, end, end)
    assert fresh.shop.post("/v1/invoices/create_preview", customer=fresh.customer)["amount_due"] == 2900


def test_a_subscription_that_ends_has_no_next_invoice(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2900)["id"])
    fresh.shop.post(f"/v1/subscriptions/{subscription}", cancel_at_period_end="true")
    error = fresh.shop.refused("/v1/invoices/create_preview", 404, subscription=subscription)
    assert error["code"] == "invoice_upcoming_none"


def test_a_preview_of_a_new_subscription_needs_no_card(shop: Running) -> None:
    customer = shop.customer(None)["id"]
    price = shop.price(2900)["id"]
    preview = shop.post(
        "/v1/invoices/create_preview", customer=customer, **{"subscription_details[items][0][price]": price}
    )
    assert preview["amount_due"] == 2900
    assert shop.get(f"/v1/subscriptions?customer={customer}&status=all")["data"] == []


def test_a_proration_date_outside_the_period_is_refused(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(1000)["id"])
    error = fresh.shop.refused(
        f"/v1/subscriptions/{subscription}",
        proration_date=str(START - 1),
        **{"items[0][id]": _item(fresh, subscription)["id"], "items[0][price]": fresh.shop.price(2000)["id"]},
    )
    assert error["param"] == "proration_date"
