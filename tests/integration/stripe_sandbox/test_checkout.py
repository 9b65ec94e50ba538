"""Checkout: the page, the cards, and what a payment brings into being."""

from __future__ import annotations

import re

import httpx
import pytest

from .conftest import CARD, Receiver, Running


def test_paying_creates_an_active_subscription_with_a_paid_numbered_invoice(shop: Running) -> None:
    price = shop.price(2900)
    session = shop.checkout(
        price["id"], client_reference_id="acct_9", **{"subscription_data[metadata][account]": "acct_9"}
    )
    answer = shop.pay(session)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"https://shop.example/done?id={session['id']}"
    done = shop.get(f"/v1/checkout/sessions/{session['id']}")
    assert (done["status"], done["payment_status"], done["url"]) == ("complete", "paid", None)
    assert done["client_reference_id"] == "acct_9"
    subscription = shop.get(f"/v1/subscriptions/{done['subscription']}")
    assert subscription["status"] == "active"
    assert subscription["metadata"] == {"account": "acct_9"}
    assert subscription["billing_mode"]["type"] == "flexible"
    invoice = shop.get(f"/v1/invoices/{done['invoice']}")
    assert (invoice["status"], invoice["amount_paid"], invoice["billing_reason"]) == (
        "paid",
        2900,
        "subscription_create",
    )
    assert re.fullmatch(r"[0-9A-Z]{8}-0001", invoice["number"])
    assert invoice["parent"]["subscription_details"]["metadata"] == {"account": "acct_9"}
    assert invoice["lines"]["data"][0]["pricing"]["price_details"]["price"] == price["id"]


def test_the_events_of_a_payment_come_in_stripes_order_and_carry_the_request(own: Running) -> None:
    session = own.checkout(own.price()["id"], customer=own.customer(None)["id"])
    own.pay(session)
    types = [event["type"] for event in own.events()]
    wanted = [
        "customer.subscription.created",
        "invoice.created",
        "invoice.finalized",
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice.paid",
        "checkout.session.completed",
    ]
    assert [name for name in types if name in wanted] == wanted
    event = own.events(type="invoice.paid")[0]
    assert event["data"]["object"]["status"] == "paid"
    assert event["livemode"] is False
    created = own.events(type="customer.created")[0]
    assert created["request"]["id"].startswith("req_")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("4000 0000 0000 0002", "Your card was declined."),
        ("4000 0000 0000 9995", "Your card has insufficient funds."),
        ("4000 0000 0000 0069", "Your card has expired."),
        ("4000 0000 0000 0127", "Your card&#39;s security code is incorrect."),
        ("4000 0000 0000 0341", "Your card was declined."),
        ("4242 4242 4242 4241", "Your card number is invalid."),
        ("4111 1111 1111 1111", "used a non test card"),
    ],
)
def test_a_refused_card_leaves_nothing_behind_and_another_may_pay(shop: Running, number: str, text: str) -> None:
    customer = shop.customer(None)
    session = shop.checkout(shop.price()["id"], customer=customer["id"])
    before = len(shop.events())
    answer = shop.pay(session, cardNumber=number)
    assert answer.status_code == 402
    assert text in answer.text
    assert 'value="123"' not in answer.text  # the security code is asked again
    assert shop.get(f"/v1/checkout/sessions/{session['id']}")["status"] == "open"
    assert shop.get(f"/v1/subscriptions?customer={customer['id']}&status=all")["data"] == []
    assert shop.get(f"/v1/invoices?customer={customer['id']}")["data"] == []
    assert shop.get(f"/v1/payment_methods?customer={customer['id']}")["data"] == []
    assert len(shop.events()) == before
    assert shop.pay(session).status_code == 303


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("email", "", "Required"),
        ("email", "jenny@", "complete email"),
        ("cardNumber", "", "Required"),
        ("cardExpiry", "1", "MM / YY"),
        ("cardExpiry", "01/20", "expiration year is invalid"),
        ("cardExpiry", "13/34", "expiration month is invalid"),
        ("cardCvc", "12", "security code is invalid"),
        ("billingName", "", "Required"),
    ],
)
def test_a_wrong_field_is_marked_and_described(shop: Running, field: str, value: str, error: str) -> None:
    session = shop.checkout(shop.price()["id"])
    answer = shop.pay(session, **{field: value})
    assert answer.status_code in (402, 422)
    mark = re.search(rf'<input id="{field}"[^>]*aria-invalid="true" aria-describedby="{field}-error"', answer.text)
    assert mark is not None
    assert re.findall(r'<input id="(\w+)"[^>]*autofocus', answer.text) == [field]
    note = re.search(rf'id="{field}-error">([^<]*)<', answer.text)
    assert note is not None
    assert error in note[1]


def test_what_a_person_types_is_escaped(shop: Running) -> None:
    session = shop.checkout(shop.price()["id"])
    answer = shop.pay(session, billingName='"><script>alert(1)</script>', cardNumber="1")
    assert "<script>" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_second_click_on_pay_makes_no_second_subscription(shop: Running) -> None:
    customer = shop.customer(None)
    session = shop.checkout(shop.price()["id"], customer=customer["id"])
    answers = [shop.pay(session) for _ in range(2)]
    assert {answer.headers["location"] for answer in answers} == {f"https://shop.example/done?id={session['id']}"}
    assert len(shop.get(f"/v1/subscriptions?customer={customer['id']}&status=all")["data"]) == 1
    assert "all done" in httpx.get(session["url"]).text


def test_an_expired_session_cannot_be_paid(shop: Running) -> None:
    session = shop.checkout(shop.price()["id"])
    expired = shop.post(f"/v1/checkout/sessions/{session['id']}/expire")
    assert (expired["status"], expired["url"]) == ("expired", None)
    assert shop.pay(session).status_code == 410
    assert shop.refused(f"/v1/checkout/sessions/{session['id']}/expire")["type"] == "invalid_request_error"
    assert shop.events(type="checkout.session.expired")[-1]["data"]["object"]["id"] == session["id"]


def test_a_session_expires_by_itself_after_its_time(own: Running, receiver: Receiver) -> None:
    session = own.checkout(own.price()["id"])
    own.advance(seconds=24 * 3600 + 1)
    assert own.get(f"/v1/checkout/sessions/{session['id']}")["status"] == "expired"
    receiver.wait_for("checkout.session.expired")


def test_a_trial_takes_the_card_and_no_money(shop: Running) -> None:
    session = shop.checkout(shop.price()["id"], **{"subscription_data[trial_period_days]": "14"})
    page = httpx.get(session["url"]).text
    assert "Start trial" in page
    assert "$0.00" in page
    shop.pay(session)
    done = shop.get(f"/v1/checkout/sessions/{session['id']}")
    assert done["payment_status"] == "no_payment_required"
    subscription = shop.get(f"/v1/subscriptions/{done['subscription']}")
    assert subscription["status"] == "trialing"
    assert subscription["trial_end"] - subscription["trial_start"] == 14 * 86400
    assert subscription["items"]["data"][0]["current_period_end"] == subscription["trial_end"]
    assert shop.get(f"/v1/invoices/{done['invoice']}")["amount_paid"] == 0


def test_a_trial_that_asks_for_no_card_starts_without_one(shop: Running) -> None:
    session = shop.checkout(
        shop.price()["id"],
        payment_method_collection="if_required",
        **{"subscription_data[trial_period_days]": "14"},
    )
    answer = httpx.post(session["url"], data={"email": "free@example.com"})
    assert answer.status_code == 303
    subscription = shop.get(f"/v1/checkout/sessions/{session['id']}?expand[]=subscription")["subscription"]
    assert subscription["default_payment_method"] is None


def test_a_one_time_payment_makes_an_intent_and_no_subscription(shop: Running) -> None:
    price = shop.price(1500, interval=None)
    session = shop.checkout(price["id"], mode="payment", **{"payment_intent_data[metadata][order]": "7"})
    assert shop.pay(session).status_code == 303
    done = shop.get(f"/v1/checkout/sessions/{session['id']}?expand[]=payment_intent")
    assert done["subscription"] is None
    assert done["customer"] is None
    assert done["payment_intent"]["amount_received"] == 1500
    assert done["payment_intent"]["metadata"] == {"order": "7"}


def test_the_way_the_official_cli_pays_works(shop: Running) -> None:
    session = shop.checkout(shop.price(1500)["id"])
    page = shop.call("GET", f"/v1/payment_pages/{session['id']}").json()
    assert page["amount_total"] == 1500
    method = shop.post(
        "/v1/payment_methods", type="card", **{"card[token]": "tok_visa", "billing_details[email]": "cli@example.com"}
    )
    path = f"/v1/payment_pages/{session['id']}/confirm"
    assert shop.refused(path, payment_method=method["id"], expected_amount="1")["param"] == "expected_amount"
    done = shop.post(path, payment_method=method["id"], expected_amount="1500")
    assert done["status"] == "complete"
    assert (
        shop.refused(path, payment_method=method["id"], expected_amount="1500")["code"] == "checkout_session_completed"
    )


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"success_url": "javascript:alert(1)"}, "success_url"),
        ({"line_items[0][quantity]": "0"}, "line_items[0][quantity]"),
        ({"line_items[0][price]": "price_none"}, "line_items[0][price]"),
        ({"mode": "payment"}, "line_items[0][price]"),
        ({"expires_at": "5"}, "expires_at"),
        ({"customer": "cus_none"}, "customer"),
        ({"customer_email": "nobody"}, "customer_email"),
    ],
)
def test_a_session_that_cannot_be_is_refused(shop: Running, change: dict[str, str], param: str) -> None:
    good = {
        "mode": "subscription",
        "success_url": "https://shop.example/",
        "line_items[0][price]": shop.price()["id"],
        "line_items[0][quantity]": "1",
    }
    assert shop.refused("/v1/checkout/sessions", **{**good, **change})["param"] == param


def test_nothing_about_another_session_is_told_by_a_wrong_address(shop: Running) -> None:
    assert httpx.get(f"{shop.url}/c/pay/cs_test_none").status_code == 404
    assert httpx.get(f"{shop.url}/c/pay/{shop.customer()['id']}").status_code == 404
    assert httpx.post(f"{shop.url}/c/pay/cs_test_none", data=CARD).status_code == 404
