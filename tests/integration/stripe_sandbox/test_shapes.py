"""Every noun, as the official library's annotations describe it."""

from __future__ import annotations

import pytest

from .conftest import Running
from .stripe_schema import check

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning:stripe")


def test_every_object_of_a_paid_checkout_has_the_documented_shape(own: Running) -> None:
    price = own.price()
    session = own.checkout(price["id"], client_reference_id="acct_1")
    assert own.pay(session).status_code == 303
    session = own.get(f"/v1/checkout/sessions/{session['id']}?expand[]=line_items&expand[]=invoice.payments")
    assert session["status"] == "complete"
    assert session["payment_status"] == "paid"
    customer = own.get(f"/v1/customers/{session['customer']}")
    subscription = own.get(f"/v1/subscriptions/{session['subscription']}?expand[]=latest_invoice&expand[]=customer")
    invoice = own.get(f"/v1/invoices/{session['invoice']['id']}?expand[]=payments.data.payment.payment_intent")
    intent = invoice["payments"]["data"][0]["payment"]["payment_intent"]
    check(intent)
    own.get(f"/v1/charges/{intent['latest_charge']}?expand[]=payment_intent.payment_method&expand[]=refunds")
    own.get(f"/v1/payment_methods/{subscription['default_payment_method']}?expand[]=customer")
    own.get(f"/v1/invoice_payments?invoice={invoice['id']}")
    own.get(f"/v1/invoices/{invoice['id']}/lines")
    own.get(f"/v1/subscription_items?subscription={subscription['id']}")
    own.get(f"/v1/checkout/sessions/{session['id']}/line_items")
    own.post("/v1/billing_portal/sessions", customer=customer["id"], return_url="https://shop.example/")
    own.get("/v1/billing_portal/configurations")
    own.post(
        "/v1/billing_portal/configurations",
        **{
            "features[invoice_history][enabled]": "true",
            "features[subscription_update][enabled]": "true",
            "features[subscription_update][default_allowed_updates][0]": "price",
            "features[subscription_update][products][0][product]": price["product"],
            "features[subscription_update][products][0][prices][0]": price["id"],
        },
    )
    own.post("/v1/invoiceitems", customer=customer["id"], amount="500", currency="usd", description="Set-up")
    own.post("/v1/webhook_endpoints", url="http://127.0.0.1:9/hook", **{"enabled_events[0]": "invoice.paid"})
    clock = own.post("/v1/test_helpers/test_clocks", frozen_time="1800000000", name="years")
    own.post(f"/v1/test_helpers/test_clocks/{clock['id']}/advance", frozen_time="1800000060")
    for kind in (
        "products",
        "prices",
        "customers",
        "payment_methods",
        "checkout/sessions",
        "subscriptions",
        "invoices",
        "invoiceitems",
        "payment_intents",
        "charges",
        "webhook_endpoints",
        "billing_portal/configurations",
        "test_helpers/test_clocks",
        "invoice_payments",
        "account",
        "balance",
    ):
        own.get(f"/v1/{kind}")
    own.get("/v1/subscriptions?status=all&expand[]=data.latest_invoice.payments&expand[]=data.items.data.price.product")
    assert len(own.events()) > 15  # each checked with the object it carries


def test_objects_of_failure_trial_and_end_have_the_documented_shape(shop: Running) -> None:
    price = shop.price()
    failing = shop.customer("pm_card_chargeCustomerFail")
    incomplete = shop.subscribe(failing["id"], price["id"])
    assert incomplete["status"] == "incomplete"
    shop.get(f"/v1/invoices/{incomplete['latest_invoice']}?expand[]=payments.data.payment.payment_intent")
    trial = shop.subscribe(shop.customer()["id"], price["id"], trial_period_days="7")
    shop.get(f"/v1/invoices/{trial['latest_invoice']}")
    paused = shop.post(f"/v1/subscriptions/{trial['id']}/pause")
    assert paused["status_details"]["paused"]["subscription"]["type"] == "pause_requested"
    resumed = shop.post(f"/v1/subscriptions/{trial['id']}/resume")
    assert resumed["status"] == "active"
    ended = shop.call("DELETE", f"/v1/subscriptions/{trial['id']}").json()
    check(ended)
    assert ended["status"] == "canceled"
    shop.events()
