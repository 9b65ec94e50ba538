"""The portal and the hosted invoice, as a person without JavaScript uses them."""

from __future__ import annotations

import re

import httpx
import pytest

from .conftest import CARD, Running


def _portal(shop: Running, customer: str, **more: str) -> str:
    session = shop.post(
        "/v1/billing_portal/sessions", customer=customer, return_url="https://shop.example/back", **more
    )
    return str(session["url"])


def test_the_portal_shows_plan_card_invoices_and_the_way_back(shop: Running) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer["id"], shop.price(2900)["id"])
    page = httpx.get(_portal(shop, customer["id"])).text
    invoice = shop.get(f"/v1/invoices/{subscription['latest_invoice']}")
    for text in ("Pro", "$29.00 / month", "Renews on", "4242", invoice["number"], "https://shop.example/back"):
        assert text in page


def test_cancelling_keeps_the_plan_to_its_end_and_can_be_taken_back(own: Running) -> None:
    customer = own.customer()
    subscription = own.subscribe(customer["id"], own.price()["id"])
    end = subscription["items"]["data"][0]["current_period_end"]
    url = _portal(own, customer["id"])
    ask = httpx.get(f"{url}/cancel", params={"subscription": subscription["id"]}).text
    assert "stays available until" in ask
    data = {"subscription": subscription["id"]}
    back = httpx.post(f"{url}/cancel", data=data, follow_redirects=True).text
    assert "Cancels on" in back
    found = own.get(f"/v1/subscriptions/{subscription['id']}")
    # Flexible billing sets the date and not the flag.
    assert (found["status"], found["cancel_at"], found["cancel_at_period_end"]) == ("active", end, False)
    assert found["cancellation_details"]["reason"] == "cancellation_requested"
    changed = own.events(type="customer.subscription.updated")[-1]["data"]
    assert changed["previous_attributes"]["cancel_at"] is None
    httpx.post(f"{url}/resume", data=data)
    found = own.get(f"/v1/subscriptions/{subscription['id']}")
    assert (found["cancel_at"], found["canceled_at"]) == (None, None)
    httpx.post(f"{url}/cancel", data=data)
    own.advance(to=end)
    found = own.get(f"/v1/subscriptions/{subscription['id']}")
    assert (found["status"], found["ended_at"]) == ("canceled", end)
    assert len(own.events(type="customer.subscription.deleted")) == 1
    assert len(own.get(f"/v1/invoices?customer={customer['id']}")["data"]) == 1  # nothing was renewed


def test_classic_billing_sets_the_flag_beside_the_date(shop: Running) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer["id"], shop.price()["id"], **{"billing_mode[type]": "classic"})
    httpx.post(f"{_portal(shop, customer['id'])}/cancel", data={"subscription": subscription["id"]})
    found = shop.get(f"/v1/subscriptions/{subscription['id']}")
    assert found["cancel_at_period_end"] is True
    assert found["cancel_at"] == found["items"]["data"][0]["current_period_end"]


def test_a_new_card_becomes_the_default_and_pays_what_is_owed(own: Running) -> None:
    customer = own.customer()
    subscription = own.subscribe(customer["id"], own.price()["id"])
    bad = own.post("/v1/payment_methods/pm_card_chargeCustomerFail/attach", customer=customer["id"])
    own.post(f"/v1/customers/{customer['id']}", **{"invoice_settings[default_payment_method]": bad["id"]})
    own.advance(seconds=32 * 86400)
    assert own.get(f"/v1/subscriptions/{subscription['id']}")["status"] == "past_due"
    url = _portal(own, customer["id"])
    refused = httpx.post(f"{url}/card", data={**CARD, "cardNumber": "4000000000000002"})
    assert "Your card was declined." in refused.text
    assert own.get(f"/v1/subscriptions/{subscription['id']}")["status"] == "past_due"
    assert httpx.post(f"{url}/card", data={**CARD, "cardNumber": "5555555555554444"}).status_code == 303
    found = own.get(f"/v1/subscriptions/{subscription['id']}?expand[]=default_payment_method")
    assert found["status"] == "active"
    assert found["default_payment_method"]["card"]["last4"] == "4444"


def test_a_portal_link_is_secret_and_only_reaches_its_customer(shop: Running) -> None:
    mine, other = shop.customer(), shop.customer()
    foreign = shop.subscribe(other["id"], shop.price()["id"])
    url = _portal(shop, mine["id"])
    assert httpx.get(url[:-4] + "xxxx").status_code == 404
    httpx.post(f"{url}/cancel", data={"subscription": foreign["id"]})
    assert shop.get(f"/v1/subscriptions/{foreign['id']}")["cancel_at"] is None


def test_a_configuration_can_forbid_cancelling_or_make_it_immediate(shop: Running) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer["id"], shop.price()["id"])
    base = {"features[invoice_history][enabled]": "false"}
    never = shop.post(
        "/v1/billing_portal/configurations", **base, **{"features[subscription_cancel][enabled]": "false"}
    )
    url = _portal(shop, customer["id"], configuration=never["id"])
    assert "Cancel plan" not in httpx.get(url).text
    httpx.post(f"{url}/cancel", data={"subscription": subscription["id"]})
    assert shop.get(f"/v1/subscriptions/{subscription['id']}")["cancel_at"] is None
    at_once = shop.post(
        f"/v1/billing_portal/configurations/{never['id']}",
        **{"features[subscription_cancel][enabled]": "true", "features[subscription_cancel][mode]": "immediately"},
    )
    assert at_once["features"]["invoice_history"]["enabled"] is False
    httpx.post(f"{url}/cancel", data={"subscription": subscription["id"]})
    assert shop.get(f"/v1/subscriptions/{subscription['id']}")["status"] == "canceled"


def test_a_flow_leads_straight_to_its_page(shop: Running) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer["id"], shop.price()["id"])
    url = _portal(
        shop,
        customer["id"],
        **{
            "flow_data[type]": "subscription_cancel",
            "flow_data[subscription_cancel][subscription]": subscription["id"],
            "flow_data[after_completion][type]": "redirect",
            "flow_data[after_completion][redirect][return_url]": "https://shop.example/bye",
        },
    )
    assert "Cancel your plan" in httpx.get(url, follow_redirects=True).text
    done = httpx.post(f"{url}/cancel", data={"subscription": subscription["id"]})
    assert done.headers["location"] == "https://shop.example/bye"


def test_the_hosted_invoice_shows_what_was_paid_and_its_pdf_opens(shop: Running) -> None:
    customer = shop.customer(name="Ünal (GmbH)")
    subscription = shop.subscribe(customer["id"], shop.price(2900)["id"])
    invoice = shop.get(f"/v1/invoices/{subscription['latest_invoice']}")
    page = httpx.get(invoice["hosted_invoice_url"])
    assert page.status_code == 200
    for text in (invoice["number"], "$29.00", "Paid on", "Ünal (GmbH)"):
        assert text in page.text
    paper = httpx.get(invoice["invoice_pdf"])
    assert paper.headers["content-type"] == "application/pdf"
    assert paper.content.startswith(b"%PDF-1.4")
    offset = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", paper.content)[1])  # type: ignore[index]
    assert paper.content[offset:].startswith(b"xref\n")
    assert invoice["number"].encode() in paper.content
    assert httpx.get(f"{invoice['hosted_invoice_url']}x").status_code == 404


@pytest.mark.parametrize(("number", "status"), [("4000000000000002", "open"), ("4242424242424242", "paid")])
def test_an_open_invoice_can_be_paid_on_its_page(shop: Running, number: str, status: str) -> None:
    customer = shop.customer("pm_card_chargeCustomerFail")
    subscription = shop.subscribe(customer["id"], shop.price()["id"])
    invoice = shop.get(f"/v1/invoices/{subscription['latest_invoice']}")
    assert invoice["status"] == "open"
    httpx.post(invoice["hosted_invoice_url"], data={**CARD, "cardNumber": number})
    assert shop.get(f"/v1/invoices/{invoice['id']}")["status"] == status
    found = shop.get(f"/v1/subscriptions/{subscription['id']}")
    assert found["status"] == ("active" if status == "paid" else "incomplete")
