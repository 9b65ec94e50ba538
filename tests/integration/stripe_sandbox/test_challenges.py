"""3D Secure: the page where a bank asks the person, from Checkout, invoices, the portal and intents."""

from __future__ import annotations

import httpx
import pytest

from .conftest import CARD, Running
from .timeline import DAY, HOUR, START, Timeline

ALWAYS, UNTIL_SET_UP = "4000 0027 6000 3184", "4000 0025 0000 3155"


def _answer(address: str, result: str) -> httpx.Response:
    page = httpx.get(address)
    assert page.status_code == 200
    assert 'value="complete"' in page.text
    return httpx.post(address, data={"result": result})


def test_checkout_subscribes_only_after_the_challenge_is_passed(shop: Running) -> None:
    session = shop.checkout(shop.price()["id"])
    asked = shop.pay(session, cardNumber=ALWAYS)
    address = asked.headers["location"]
    assert shop.get(f"/v1/checkout/sessions/{session['id']}")["subscription"] is None
    done = _answer(address, "complete")
    assert done.headers["location"] == f"https://shop.example/done?id={session['id']}"
    found = shop.get(f"/v1/checkout/sessions/{session['id']}?expand[]=subscription")
    assert (found["payment_status"], found["subscription"]["status"]) == ("paid", "active")
    assert found["customer_details"]["email"] == "jenny@example.com"
    assert httpx.post(address, data={"result": "complete"}).status_code == 410  # a challenge is answered once


def test_a_failed_challenge_leads_back_to_the_page_and_leaves_nothing(shop: Running) -> None:
    session = shop.checkout(shop.price()["id"])
    back = _answer(shop.pay(session, cardNumber=ALWAYS).headers["location"], "fail")
    page = httpx.get(f"{shop.url}{back.headers['location']}")
    assert "unable to authenticate your payment method" in page.text
    assert shop.get(f"/v1/checkout/sessions/{session['id']}")["status"] == "open"
    assert shop.pay(session).status_code == 303


def test_two_open_challenges_of_one_session_make_one_subscription(shop: Running) -> None:
    customer = shop.customer(None)["id"]
    session = shop.checkout(shop.price()["id"], customer=customer)
    first, second = (shop.pay(session, cardNumber=ALWAYS).headers["location"] for _ in range(2))
    assert _answer(first, "complete").headers["location"] == _answer(second, "complete").headers["location"]
    assert len(shop.get(f"/v1/subscriptions?customer={customer}&status=all")["data"]) == 1


def test_an_invoice_is_paid_by_passing_the_challenge_of_its_last_try(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price()["id"])
    fresh.use("pm_card_authenticationRequired")
    fresh.to(START + 28 * DAY + HOUR)
    invoice = fresh.invoices()[-1]
    assert (invoice["status"], fresh.subscription(subscription)["status"]) == ("open", "past_due")
    payments = fresh.shop.get(f"/v1/invoice_payments?invoice={invoice['id']}&expand[]=data.payment.payment_intent")
    intent = payments["data"][0]["payment"]["payment_intent"]
    address = intent["next_action"]["use_stripe_sdk"]["stripe_js"]
    assert address in httpx.get(invoice["hosted_invoice_url"]).text
    assert _answer(address, "complete").headers["location"] == invoice["hosted_invoice_url"]
    assert fresh.invoices()[-1]["status"] == "paid"
    assert fresh.subscription(subscription)["status"] == "active"


def test_a_card_set_up_on_the_page_needs_no_confirming_at_the_renewal(own: Running) -> None:
    session = own.checkout(own.price(2900)["id"])
    _answer(own.pay(session, cardNumber=UNTIL_SET_UP).headers["location"], "complete")
    own.advance(seconds=32 * DAY)
    assert [one["status"] for one in own.get("/v1/invoices")["data"]] == ["paid", "paid"]


def test_a_payment_intent_leads_to_the_challenge_and_back(shop: Running) -> None:
    given = {"amount": "500", "currency": "usd", "payment_method": "pm_card_threeDSecure2Required", "confirm": "true"}
    intent = shop.post("/v1/payment_intents", **given, return_url="https://shop.example/back")
    assert intent["status"] == "requires_action"
    back = _answer(intent["next_action"]["redirect_to_url"]["url"], "complete").headers["location"]
    assert back == f"https://shop.example/back?payment_intent={intent['id']}&redirect_status=succeeded"
    assert shop.get(f"/v1/payment_intents/{intent['id']}")["status"] == "succeeded"
    failing = shop.post("/v1/payment_intents", **given, return_url="https://shop.example/back")
    assert "failed" in _answer(failing["next_action"]["redirect_to_url"]["url"], "fail").headers["location"]
    failed = shop.get(f"/v1/payment_intents/{failing['id']}")
    assert failed["status"] == "requires_payment_method"
    assert failed["last_payment_error"]["code"] == "payment_intent_authentication_failure"


def test_an_intent_without_a_way_back_says_on_the_page_how_it_went(shop: Running) -> None:
    given = {"amount": "500", "currency": "usd", "payment_method": "pm_card_threeDSecure2Required", "confirm": "true"}
    for result, words in (("complete", "Your bank has confirmed"), ("fail", "unable to authenticate")):
        intent = shop.post("/v1/payment_intents", **given)
        assert words in _answer(intent["next_action"]["use_stripe_sdk"]["stripe_js"], result).text


@pytest.mark.parametrize(("result", "status"), [("complete", "succeeded"), ("fail", "requires_payment_method")])
def test_a_setup_intent_saves_a_card_after_its_challenge(shop: Running, result: str, status: str) -> None:
    customer = shop.customer(None)["id"]
    intent = shop.post("/v1/setup_intents", customer=customer, payment_method="pm_card_authenticationRequiredOnSetup")
    assert intent["status"] == "requires_confirmation"
    asked = shop.post(f"/v1/setup_intents/{intent['id']}/confirm", return_url="https://shop.example/back")
    assert asked["status"] == "requires_action"
    _answer(asked["next_action"]["redirect_to_url"]["url"], result)
    assert shop.get(f"/v1/setup_intents/{intent['id']}")["status"] == status
    cards = shop.get(f"/v1/payment_methods?customer={customer}")["data"]
    assert len(cards) == (1 if result == "complete" else 0)


def test_a_setup_intent_refuses_a_bad_card_and_keeps_the_refusal(shop: Running) -> None:
    intent = shop.post("/v1/setup_intents", customer=shop.customer(None)["id"])
    error = shop.refused(f"/v1/setup_intents/{intent['id']}/confirm", 402, payment_method="pm_card_chargeDeclined")
    assert error["decline_code"] == "generic_decline"
    found = shop.get(f"/v1/setup_intents/{intent['id']}")
    assert (found["status"], found["last_setup_error"]["code"]) == ("requires_payment_method", "card_declined")
    assert shop.post(f"/v1/setup_intents/{intent['id']}/cancel")["status"] == "canceled"
    assert shop.refused(f"/v1/setup_intents/{intent['id']}/confirm")["code"] == "setup_intent_unexpected_state"


def test_a_card_of_the_portal_is_saved_after_its_challenge(shop: Running) -> None:
    customer = shop.customer()["id"]
    url = shop.post("/v1/billing_portal/sessions", customer=customer)["url"]
    asked = httpx.post(f"{url}/card", data={**CARD, "cardNumber": UNTIL_SET_UP})
    back = _answer(asked.headers["location"], "complete").headers["location"]
    assert "Your card has been updated" in httpx.get(f"{shop.url}{back}").text
    found = shop.get(f"/v1/customers/{customer}?expand[]=invoice_settings.default_payment_method")
    assert found["invoice_settings"]["default_payment_method"]["card"]["last4"] == "3155"


def test_an_intent_of_an_invoice_confirmed_by_api_pays_the_invoice(shop: Running) -> None:
    customer = shop.customer("pm_card_chargeCustomerFail")["id"]
    subscription = shop.subscribe(customer, shop.price()["id"], payment_behavior="default_incomplete")
    path = f"/v1/invoices/{subscription['latest_invoice']}"
    intent = shop.get(f"{path}?expand[]=payments")["payments"]["data"][0]["payment"]["payment_intent"]
    assert shop.post(f"/v1/payment_intents/{intent}/confirm", payment_method="pm_card_visa")["status"] == "succeeded"
    assert shop.get(path)["status"] == "paid"
    assert shop.get(f"/v1/subscriptions/{subscription['id']}")["status"] == "active"
