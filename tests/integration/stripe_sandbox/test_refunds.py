"""Refunds and disputes, by API, by test card and in the dashboard."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Receiver, Running


def _paid(shop: Running, card: str = "pm_card_visa", amount: int = 2900) -> dict[str, Any]:
    """The payment intent of a subscription's first invoice."""
    subscription = shop.subscribe(shop.customer(card)["id"], shop.price(amount)["id"])
    path = f"/v1/invoices/{subscription['latest_invoice']}?expand[]=payments.data.payment.payment_intent"
    intent: dict[str, Any] = shop.get(path)["payments"]["data"][0]["payment"]["payment_intent"]
    return intent


def _events(shop: Running, customer: str) -> list[str]:
    return [e["type"] for e in shop.events() if e["data"]["object"].get("customer") == customer]


def test_a_payment_is_refunded_in_parts_and_never_beyond_what_was_paid(shop: Running) -> None:
    intent = _paid(shop)
    first = shop.post("/v1/refunds", payment_intent=intent["id"], amount="900", reason="requested_by_customer")
    assert (first["amount"], first["status"], first["charge"]) == (900, "succeeded", intent["latest_charge"])
    error = shop.refused("/v1/refunds", payment_intent=intent["id"], amount="2001")
    assert "greater than unrefunded amount on charge ($20.00)" in error["message"]
    charge = shop.get(f"/v1/charges/{intent['latest_charge']}")
    assert (charge["amount_refunded"], charge["refunded"]) == (900, False)
    rest = shop.post("/v1/refunds", charge=intent["latest_charge"])
    assert rest["amount"] == 2000
    charge = shop.get(f"/v1/charges/{intent['latest_charge']}?expand[]=refunds")
    assert (charge["amount_refunded"], charge["refunded"]) == (2900, True)
    assert [one["id"] for one in charge["refunds"]["data"]] == [rest["id"], first["id"]]
    assert shop.refused("/v1/refunds", charge=intent["latest_charge"])["code"] == "charge_already_refunded"
    listed = shop.get(f"/v1/refunds?payment_intent={intent['id']}")["data"]
    assert [one["amount"] for one in listed] == [2000, 900]
    types = _events(shop, intent["customer"])
    assert (types.count("refund.created"), types.count("charge.refunded")) == (2, 2)


def test_a_refund_repeated_under_its_key_is_made_once(shop: Running) -> None:
    intent = _paid(shop)
    data = {"payment_intent": intent["id"], "amount": "100"}
    one = shop.call("POST", "/v1/refunds", data, Idempotency_Key="refund-1").json()
    assert shop.call("POST", "/v1/refunds", data, Idempotency_Key="refund-1").json() == one
    assert shop.get(f"/v1/charges/{intent['latest_charge']}")["amount_refunded"] == 100


def test_what_was_never_paid_is_not_refunded(shop: Running) -> None:
    intent = _paid(shop, "pm_card_chargeCustomerFail")
    assert "does not have a successful charge" in shop.refused("/v1/refunds", payment_intent=intent["id"])["message"]
    assert shop.refused("/v1/refunds", charge=intent["latest_charge"])["code"] == "charge_not_refundable"
    assert shop.refused("/v1/refunds", amount="100")["code"] == "parameter_missing"


def test_a_refund_in_the_dashboard_is_told_by_events_without_a_request(own: Running, receiver: Receiver) -> None:
    subscription = own.subscribe(own.customer()["id"], own.price(2900)["id"])
    refund = own.control("POST", "refunds", {"invoice": subscription["latest_invoice"], "amount": 500})
    assert own.get(f"/v1/refunds/{refund['id']}")["amount"] == 500
    event = receiver.wait_for("charge.refunded")[0].event
    assert event["request"] == {"id": None, "idempotency_key": None}
    assert event["data"]["object"]["amount_refunded"] == 500
    assert event["data"]["previous_attributes"] == {"amount_refunded": 0}
    refused = own.client.post(
        f"{own.url}/_sandbox/refunds", json={"invoice": subscription["latest_invoice"], "amount": 9999}
    )
    assert refused.status_code == 400


def test_refunds_to_some_cards_settle_later_or_fail(own: Running) -> None:
    pending, failing = _paid(own, "pm_card_pendingRefund"), _paid(own, "pm_card_refundFail")
    late = own.post("/v1/refunds", payment_intent=pending["id"])
    lost = own.post("/v1/refunds", payment_intent=failing["id"])
    assert (late["status"], lost["status"]) == ("pending", "succeeded")
    own.advance(seconds=120)
    assert own.get(f"/v1/refunds/{late['id']}")["status"] == "succeeded"
    assert own.get(f"/v1/refunds/{lost['id']}")["status"] == "failed"
    assert own.get(f"/v1/charges/{failing['latest_charge']}")["amount_refunded"] == 0
    assert len(own.events(type="refund.failed")) == 1


def test_the_balance_is_what_was_charged_less_what_was_given_back(own: Running) -> None:
    intent = _paid(own)
    assert own.get("/v1/balance")["available"][0]["amount"] == 2900
    own.post("/v1/refunds", payment_intent=intent["id"], amount="900")
    assert own.get("/v1/balance")["available"][0]["amount"] == 2000


def test_the_dispute_card_disputes_its_charge(shop: Running) -> None:
    intent = _paid(shop, "pm_card_createDispute")
    charge = shop.get(f"/v1/charges/{intent['latest_charge']}")
    assert charge["disputed"] is True
    dispute = shop.get(f"/v1/disputes?charge={charge['id']}")["data"][0]
    assert (dispute["reason"], dispute["status"], dispute["amount"]) == ("fraudulent", "needs_response", 2900)
    assert shop.refused("/v1/refunds", charge=charge["id"])["code"] == "charge_disputed"


@pytest.mark.parametrize("verdict", ["won", "lost"])
def test_evidence_decides_a_dispute_as_in_test_mode(own: Running, verdict: str) -> None:
    intent = _paid(own, "pm_card_createDispute")
    dispute = own.get("/v1/disputes")["data"][0]
    evidence = {"won": "winning_evidence", "lost": "losing_evidence"}[verdict]
    found = own.post(f"/v1/disputes/{dispute['id']}", **{"evidence[uncategorized_text]": evidence})
    assert found["status"] == verdict
    types = [event["type"] for event in own.events() if event["type"].startswith("charge.dispute")]
    expected = [f"charge.dispute.{what}" for what in ("created", "funds_withdrawn", "updated", "closed")]
    assert types == [*expected, *(["charge.dispute.funds_reinstated"] if verdict == "won" else [])]
    assert own.get(f"/v1/charges/{intent['latest_charge']}")["disputed"] is True


def test_a_dispute_made_and_closed_by_hand_is_told(own: Running, receiver: Receiver) -> None:
    subscription = own.subscribe(own.customer()["id"], own.price(2900)["id"])
    dispute = own.control("POST", "disputes", {"invoice": subscription["latest_invoice"], "reason": "duplicate"})
    created = receiver.wait_for("charge.dispute.created")[0].event["data"]["object"]
    assert (created["id"], created["reason"]) == (dispute["id"], "duplicate")
    assert own.control("POST", f"disputes/{dispute['id']}/close", {"status": "lost"})["status"] == "lost"
    assert receiver.wait_for("charge.dispute.closed")[0].event["data"]["object"]["status"] == "lost"
    assert own.refused(f"/v1/disputes/{dispute['id']}/close")["code"] == "dispute_already_closed"


def test_an_inquiry_withdraws_nothing_and_can_be_refunded(shop: Running) -> None:
    intent = _paid(shop, "pm_card_createDisputeInquiry")
    dispute = shop.get(f"/v1/disputes?payment_intent={intent['id']}")["data"][0]
    assert (dispute["status"], dispute["is_charge_refundable"]) == ("warning_needs_response", True)
    assert shop.post("/v1/refunds", payment_intent=intent["id"])["amount"] == 2900
