"""Failed payments: why, when they are tried again, what ends them, and every way to put them right."""

from __future__ import annotations

import httpx
import pytest

from .conftest import CARD, Running
from .timeline import DAY, HOUR, START, Timeline

FAILED_AT = START + 28 * DAY + HOUR


def _past_due(life: Timeline) -> str:
    subscription = life.subscribe(life.shop.price(2900)["id"])
    life.use("pm_card_chargeCustomerFail")
    life.to(FAILED_AT)
    assert life.subscription(subscription)["status"] == "past_due"
    return subscription


@pytest.mark.parametrize(
    ("number", "code", "decline_code"),
    [
        ("4000000000000002", "card_declined", "generic_decline"),
        ("4000000000009995", "card_declined", "insufficient_funds"),
        ("4000000000009987", "card_declined", "lost_card"),
        ("4000000000009979", "card_declined", "stolen_card"),
        ("4000000000006975", "card_declined", "card_velocity_exceeded"),
        ("4100000000000019", "card_declined", "fraudulent"),
        ("4000000000000069", "expired_card", None),
        ("4000000000000127", "incorrect_cvc", None),
        ("4000000000000119", "processing_error", None),
        ("4000000000000341", "card_declined", "generic_decline"),
    ],
)
def test_the_reason_of_a_decline_is_told_by_error_intent_and_charge(
    shop: Running, number: str, code: str, decline_code: str | None
) -> None:
    card = {"type": "card", "card[number]": number, "card[exp_month]": "12", "card[exp_year]": "2034"}
    method = shop.post("/v1/payment_methods", **card, **{"card[cvc]": "123"})["id"]
    given = {"amount": "500", "currency": "usd", "payment_method": method, "confirm": "true"}
    error = shop.refused("/v1/payment_intents", 402, **given)
    assert (error["type"], error["code"], error.get("decline_code")) == ("card_error", code, decline_code)
    intent = shop.get(f"/v1/payment_intents/{error['payment_intent']['id']}")
    assert intent["last_payment_error"]["code"] == code
    charge = shop.get(f"/v1/charges/{error['charge']}")
    assert (charge["status"], charge["failure_code"]) == ("failed", code)


def test_a_failed_renewal_says_how_often_it_was_tried_and_when_again(fresh: Timeline) -> None:
    _past_due(fresh)
    failed = fresh.events(type="invoice.payment_failed")[0]["data"]["object"]
    assert (failed["attempt_count"], failed["amount_remaining"]) == (1, 2900)
    assert failed["next_payment_attempt"] == FAILED_AT + 3 * DAY
    assert fresh.shop.get(f"/v1/customers/{fresh.customer}")["delinquent"] is True


def test_the_last_failed_try_announces_no_other(fresh: Timeline) -> None:
    fresh.shop.control("PUT", "settings", {"retry_days": [1]})
    subscription = _past_due(fresh)
    fresh.to(FAILED_AT + DAY)
    last = fresh.events(type="invoice.payment_failed")[-1]["data"]["object"]
    assert (last["attempt_count"], last["next_payment_attempt"]) == (2, None)
    assert fresh.subscription(subscription)["status"] == "canceled"


def test_the_invoices_page_restores_a_past_due_subscription(fresh: Timeline) -> None:
    subscription = _past_due(fresh)
    page = fresh.invoices()[-1]["hosted_invoice_url"]
    refused = httpx.post(page, data={**CARD, "cardNumber": "4000 0000 0000 9995"})
    assert (refused.status_code, "insufficient funds" in refused.text) == (402, True)
    assert fresh.invoices()[-1]["attempt_count"] == 2
    assert httpx.post(page, data=CARD).status_code == 303
    assert fresh.subscription(subscription)["status"] == "active"
    assert fresh.shop.get(f"/v1/customers/{fresh.customer}")["delinquent"] is False
    fresh.to(FAILED_AT + 20 * DAY)
    assert fresh.invoices()[-1]["attempt_count"] == 3  # nothing is tried any more


def test_paying_by_api_with_a_card_of_the_moment_restores_it(fresh: Timeline) -> None:
    subscription = _past_due(fresh)
    path = f"/v1/invoices/{fresh.invoices()[-1]['id']}/pay"
    assert fresh.shop.refused(path, 402)["code"] == "card_declined"
    assert fresh.invoices()[-1]["attempt_count"] == 2
    assert fresh.shop.post(path, payment_method="pm_card_visa")["status"] == "paid"
    assert fresh.subscription(subscription)["status"] == "active"


def test_paid_out_of_band_counts_as_paid_and_charges_nothing(fresh: Timeline) -> None:
    subscription = _past_due(fresh)
    charges = len(fresh.shop.get(f"/v1/charges?customer={fresh.customer}")["data"])
    fresh.shop.post(f"/v1/invoices/{fresh.invoices()[-1]['id']}/pay", paid_out_of_band="true")
    assert fresh.subscription(subscription)["status"] == "active"
    assert len(fresh.shop.get(f"/v1/charges?customer={fresh.customer}")["data"]) == charges


def test_a_card_removed_leaves_nothing_to_charge(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2900)["id"])
    card = fresh.shop.get(f"/v1/payment_methods?customer={fresh.customer}")["data"][0]["id"]
    assert fresh.shop.post(f"/v1/payment_methods/{card}/detach")["customer"] is None
    fresh.to(FAILED_AT)
    assert fresh.subscription(subscription)["status"] == "past_due"
    fresh.use("pm_card_visa")
    fresh.to(FAILED_AT + 3 * DAY)
    assert fresh.subscription(subscription)["status"] == "active"


def test_a_subscription_can_keep_the_card_that_paid_it(shop: Running) -> None:
    customer = shop.customer(None)["id"]
    save = {"payment_settings[save_default_payment_method]": "on_subscription"}
    subscription = shop.subscribe(customer, shop.price()["id"], payment_behavior="default_incomplete", **save)
    httpx.post(shop.get(f"/v1/invoices/{subscription['latest_invoice']}")["hosted_invoice_url"], data=CARD)
    found = shop.get(f"/v1/subscriptions/{subscription['id']}?expand[]=default_payment_method")
    assert (found["status"], found["default_payment_method"]["customer"]) == ("active", customer)


def test_a_canceled_subscription_stays_so_when_its_last_invoice_is_paid(fresh: Timeline) -> None:
    fresh.shop.control("PUT", "settings", {"retry_days": []})
    subscription = fresh.subscribe(fresh.shop.price(2900)["id"])
    fresh.use("pm_card_chargeCustomerFail")
    fresh.to(FAILED_AT)
    assert fresh.subscription(subscription)["status"] == "canceled"
    owed = fresh.invoices()[-1]
    assert (owed["status"], owed["next_payment_attempt"]) == ("open", None)
    fresh.shop.post(f"/v1/invoices/{owed['id']}/pay", payment_method="pm_card_visa")
    assert fresh.subscription(subscription)["status"] == "canceled"
