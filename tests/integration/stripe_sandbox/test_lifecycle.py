"""A subscription's life on a test clock: renewal, failure, trial, cancellation, change."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from .conftest import CARD, Running
from .timeline import DAY, HOUR, START, Timeline


def _date(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"


def test_a_renewal_is_a_draft_for_an_hour_and_then_paid(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2900)["id"])
    end = fresh.subscription(subscription)["items"]["data"][0]["current_period_end"]
    fresh.to(end + 60)
    renewed = fresh.subscription(subscription)
    assert renewed["items"]["data"][0]["current_period_start"] == end
    draft = fresh.invoices()[-1]
    assert (draft["status"], draft["billing_reason"], draft["number"]) == ("draft", "subscription_cycle", None)
    assert (draft["hosted_invoice_url"], draft["invoice_pdf"]) == (None, None)
    assert renewed["latest_invoice"] == draft["id"]
    fresh.to(end + HOUR)
    paid = fresh.invoices()[-1]
    assert (paid["id"], paid["status"], paid["amount_paid"]) == (draft["id"], "paid", 2900)
    assert paid["number"].endswith("-0002")
    assert paid["lines"]["data"][0]["period"] == {
        "start": end,
        "end": renewed["items"]["data"][0]["current_period_end"],
    }
    assert paid["status_transitions"]["paid_at"] == end + HOUR


def test_a_renewal_is_told_a_week_before_and_an_end_is_not(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2900)["id"])
    end = fresh.subscription(subscription)["items"]["data"][0]["current_period_end"]
    fresh.to(end - 7 * DAY - 1)
    assert fresh.events(type="invoice.upcoming") == []
    fresh.to(end + 2 * HOUR)
    told = fresh.events(type="invoice.upcoming")
    assert [(event["created"], event["data"]["object"]["amount_due"]) for event in told] == [(end - 7 * DAY, 2900)]
    assert len(fresh.invoices()) == 2
    fresh.shop.post(f"/v1/subscriptions/{subscription}", cancel_at_period_end="true")
    fresh.to(end + 40 * DAY)
    assert len(fresh.events(type="invoice.upcoming")) == 1


def test_a_subscription_from_the_31st_bills_on_each_months_last_day(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price()["id"])
    ends = []
    for _ in range(4):
        end = fresh.subscription(subscription)["items"]["data"][0]["current_period_end"]
        ends.append(_date(end))
        fresh.to(end + 2 * HOUR)
    assert ends == ["2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"]
    assert [invoice["status"] for invoice in fresh.invoices()] == ["paid"] * 5


def test_a_clock_moves_forward_by_at_most_two_intervals(fresh: Timeline) -> None:
    fresh.subscribe(fresh.shop.price()["id"])
    path = f"/v1/test_helpers/test_clocks/{fresh.clock}/advance"
    assert fresh.shop.refused(path, frozen_time=str(START + 90 * DAY))["param"] == "frozen_time"
    assert fresh.shop.refused(path, frozen_time=str(START - 1))["param"] == "frozen_time"
    fresh.to(START + 57 * DAY)


@pytest.mark.parametrize(
    ("end_state", "status"), [("cancel", "canceled"), ("unpaid", "unpaid"), ("past_due", "past_due")]
)
def test_a_failing_renewal_is_retried_on_schedule_and_ends_as_set(fresh: Timeline, end_state: str, status: str) -> None:
    fresh.shop.control("PUT", "settings", {"end_state": end_state})
    subscription = fresh.subscribe(fresh.shop.price()["id"])
    fresh.use("pm_card_chargeCustomerFail")
    first = fresh.subscription(subscription)["items"]["data"][0]["current_period_end"] + HOUR
    fresh.to(first)
    tries = []
    assert fresh.subscription(subscription)["status"] == "past_due"
    while (pending := fresh.invoices()[1])["next_payment_attempt"]:
        tries.append((pending["next_payment_attempt"] - first) // DAY)
        fresh.to(pending["next_payment_attempt"])
    assert tries == [3, 8, 15]
    failed = fresh.invoices()[1]
    assert (failed["status"], failed["attempt_count"], failed["attempted"]) == ("open", 4, True)
    assert len(fresh.events(type="invoice.payment_failed")) == 4
    found = fresh.subscription(subscription)
    assert found["status"] == status
    if status == "canceled":
        assert found["cancellation_details"]["reason"] == "payment_failed"
    else:
        fresh.to(found["items"]["data"][0]["current_period_end"] + 2 * HOUR)
        later = fresh.invoices()[-1]
        # Unpaid goes on making invoices that nobody collects; past due goes on trying.
        assert later["status"] == ("draft" if status == "unpaid" else "open")
        assert later["attempt_count"] == (0 if status == "unpaid" else 1)


def test_a_card_that_works_again_restores_the_subscription_at_the_next_try(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price()["id"])
    fresh.use("pm_card_chargeCustomerFail")
    fresh.to(START + 28 * DAY + HOUR)
    fresh.use("pm_card_visa")
    fresh.to(START + 31 * DAY + HOUR)
    assert fresh.subscription(subscription)["status"] == "active"
    assert fresh.invoices()[1]["status"] == "paid"
    before, after = fresh.events(type="customer.subscription.updated")[-2:]
    assert before["data"]["object"]["status"] == "past_due"
    assert after["data"]["previous_attributes"] == {"status": "past_due"}


def test_a_card_whose_bank_asks_the_person_fails_off_session_and_pays_on_the_invoices_page(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price()["id"])
    fresh.use("pm_card_authenticationRequired")
    fresh.to(START + 28 * DAY + HOUR)
    assert fresh.subscription(subscription)["status"] == "past_due"
    assert len(fresh.events(type="invoice.payment_action_required")) == 1
    invoice = fresh.invoices()[-1]
    payments = fresh.shop.get(f"/v1/invoice_payments?invoice={invoice['id']}&expand[]=data.payment.payment_intent")
    assert payments["data"][0]["payment"]["payment_intent"]["status"] == "requires_action"
    asked = httpx.post(invoice["hosted_invoice_url"], data={**CARD, "cardNumber": "4000 0027 6000 3184"})
    httpx.post(asked.headers["location"], data={"result": "complete"})
    assert fresh.invoices()[-1]["status"] == "paid"
    assert fresh.subscription(subscription)["status"] == "active"


def test_paying_the_latest_invoice_by_hand_restores_an_unpaid_subscription(fresh: Timeline) -> None:
    fresh.shop.control("PUT", "settings", {"end_state": "unpaid", "retry_days": []})
    subscription = fresh.subscribe(fresh.shop.price()["id"])
    fresh.use("pm_card_chargeCustomerFail")
    fresh.to(START + 28 * DAY + HOUR)
    assert fresh.subscription(subscription)["status"] == "unpaid"
    fresh.use("pm_card_visa")
    invoice = fresh.shop.post(f"/v1/invoices/{fresh.invoices()[-1]['id']}/pay")
    assert invoice["status"] == "paid"
    assert fresh.subscription(subscription)["status"] == "active"


def test_a_trial_warns_three_days_before_and_is_charged_an_hour_after_its_end(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2900)["id"], trial_period_days="14")
    assert [invoice["amount_due"] for invoice in fresh.invoices()] == [0]
    fresh.to(START + 11 * DAY - 1)
    assert fresh.events(type="customer.subscription.trial_will_end") == []
    fresh.to(START + 11 * DAY)
    warned = fresh.events(type="customer.subscription.trial_will_end")
    assert [event["created"] for event in warned] == [START + 11 * DAY]
    fresh.to(START + 14 * DAY)
    assert fresh.subscription(subscription)["status"] == "active"
    assert fresh.invoices()[-1]["status"] == "draft"
    fresh.to(START + 14 * DAY + HOUR)
    assert [invoice["amount_paid"] for invoice in fresh.invoices()] == [0, 2900]


@pytest.mark.parametrize(
    ("behavior", "status"), [("cancel", "canceled"), ("pause", "paused"), ("create_invoice", "past_due")]
)
def test_a_trial_without_a_card_ends_as_it_was_told(shop: Running, behavior: str, status: str) -> None:
    life = Timeline(shop, card=None)
    subscription = life.subscribe(
        shop.price()["id"],
        trial_period_days="7",
        **{"trial_settings[end_behavior][missing_payment_method]": behavior},
    )
    life.to(START + 7 * DAY + HOUR)
    found = life.subscription(subscription)
    assert found["status"] == status
    if status == "paused":
        why = found["status_details"]["paused"]["subscription"]["type"]
        assert why == "trial_end_without_payment_method"
        life.use("pm_card_visa")
        assert shop.post(f"/v1/subscriptions/{subscription}/resume")["status"] == "active"
        assert life.invoices()[-1]["status"] == "paid"


def test_a_cancellation_at_period_end_is_updated_now_and_deleted_then(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price()["id"])
    end = fresh.subscription(subscription)["items"]["data"][0]["current_period_end"]
    path = f"/v1/subscriptions/{subscription}"
    cancelling = fresh.shop.post(path, cancel_at_period_end="true")
    assert (cancelling["status"], cancelling["cancel_at_period_end"], cancelling["cancel_at"]) == ("active", True, end)
    assert fresh.shop.post(path, cancel_at_period_end="false")["cancel_at"] is None
    fresh.shop.post(path, cancel_at_period_end="true")
    fresh.to(end)
    ended = fresh.subscription(subscription)
    assert (ended["status"], ended["ended_at"]) == ("canceled", end)
    assert [event["created"] for event in fresh.events(type="customer.subscription.deleted")] == [end]
    assert len(fresh.invoices()) == 1
    assert fresh.shop.get(f"/v1/subscriptions?customer={fresh.customer}")["data"] == []
    assert len(fresh.shop.get(f"/v1/subscriptions?customer={fresh.customer}&status=all")["data"]) == 1
    assert fresh.shop.refused(path, cancel_at_period_end="false")["type"] == "invalid_request_error"


def test_a_first_payment_not_made_in_23_hours_expires_the_subscription(shop: Running) -> None:
    life = Timeline(shop, card="pm_card_chargeCustomerFail")
    subscription = life.subscribe(shop.price()["id"])
    assert life.subscription(subscription)["status"] == "incomplete"
    life.to(START + 23 * HOUR)
    found = life.subscription(subscription)
    assert (found["status"], found["ended_at"]) == ("incomplete_expired", START + 23 * HOUR)
    assert life.invoices()[0]["status"] == "void"
    life.to(START + 40 * DAY)
    assert len(life.invoices()) == 1


def test_an_upgrade_in_mid_period_credits_the_rest_and_charges_the_rest(fresh: Timeline) -> None:
    small, big = fresh.shop.price(1000)["id"], fresh.shop.price(3000)["id"]
    subscription = fresh.subscribe(small)
    item = fresh.subscription(subscription)["items"]["data"][0]
    middle = (item["current_period_start"] + item["current_period_end"]) // 2
    fresh.to(middle)
    change = {"items[0][id]": item["id"], "items[0][price]": big}
    changed = fresh.shop.post(f"/v1/subscriptions/{subscription}", **change, proration_behavior="always_invoice")
    assert changed["items"]["data"][0]["price"]["id"] == big
    assert changed["items"]["data"][0]["current_period_end"] == item["current_period_end"]
    invoice = fresh.invoices()[-1]
    assert [line["amount"] for line in invoice["lines"]["data"]] == [-500, 1500]
    assert (invoice["status"], invoice["amount_paid"], invoice["billing_reason"]) == (
        "paid",
        1000,
        "subscription_update",
    )
    fresh.to(item["current_period_end"] + HOUR)
    assert fresh.invoices()[-1]["amount_paid"] == 3000


def test_a_proration_left_pending_comes_with_the_next_invoice(fresh: Timeline) -> None:
    small, big = fresh.shop.price(1000)["id"], fresh.shop.price(3000)["id"]
    subscription = fresh.subscribe(small)
    item = fresh.subscription(subscription)["items"]["data"][0]
    fresh.to((item["current_period_start"] + item["current_period_end"]) // 2)
    fresh.shop.post(f"/v1/subscriptions/{subscription}", **{"items[0][id]": item["id"], "items[0][price]": big})
    assert len(fresh.invoices()) == 1
    assert len(fresh.shop.get(f"/v1/invoiceitems?customer={fresh.customer}&pending=true")["data"]) == 2
    fresh.to(item["current_period_end"] + HOUR)
    assert sorted(line["amount"] for line in fresh.invoices()[-1]["lines"]["data"]) == [-500, 1500, 3000]
    assert fresh.shop.get(f"/v1/invoiceitems?customer={fresh.customer}&pending=true")["data"] == []


def test_going_from_monthly_to_yearly_starts_a_new_period_paid_at_once(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(1000)["id"])
    item = fresh.subscription(subscription)["items"]["data"][0]
    yearly = fresh.shop.price(10_000, "year")["id"]
    changed = fresh.shop.post(
        f"/v1/subscriptions/{subscription}", **{"items[0][id]": item["id"], "items[0][price]": yearly}
    )
    assert _date(changed["items"]["data"][0]["current_period_end"]) == "2028-01-31"
    assert fresh.invoices()[-1]["amount_paid"] == 9_000


def test_deleting_a_clock_deletes_its_customers(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price()["id"])
    deleted = fresh.shop.call("DELETE", f"/v1/test_helpers/test_clocks/{fresh.clock}").json()
    assert deleted["deleted"] is True
    assert fresh.shop.get(f"/v1/customers/{fresh.customer}")["deleted"] is True
    fresh.shop.refused(f"/v1/subscriptions/{subscription}", 404, "GET")


def test_a_manual_invoice_bills_the_pending_items(shop: Running) -> None:
    customer = shop.customer()["id"]
    shop.post("/v1/invoiceitems", customer=customer, amount="700", currency="usd", description="Set-up")
    assert shop.post("/v1/invoices", customer=customer)["amount_due"] == 0  # pending items only when asked for
    invoice = shop.post("/v1/invoices", customer=customer, pending_invoice_items_behavior="include")
    assert (invoice["status"], invoice["amount_due"]) == ("draft", 700)
    shop.post("/v1/invoiceitems", customer=customer, amount="300", currency="usd", invoice=invoice["id"])
    assert shop.post(f"/v1/invoices/{invoice['id']}/finalize")["amount_due"] == 1000
    assert shop.post(f"/v1/invoices/{invoice['id']}/pay")["amount_paid"] == 1000
    assert shop.refused(f"/v1/invoices/{invoice['id']}/pay")["code"] == "invoice_already_paid"
    assert shop.refused(f"/v1/invoices/{invoice['id']}/finalize")["code"] == "invoice_not_editable"


@pytest.mark.parametrize("behavior", ["error_if_incomplete", "default_incomplete", "allow_incomplete"])
def test_a_first_payment_that_fails_follows_the_payment_behavior(shop: Running, behavior: str) -> None:
    customer = shop.customer("pm_card_chargeCustomerFail")["id"]
    given = {"customer": customer, "items[0][price]": shop.price()["id"], "payment_behavior": behavior}
    if behavior == "error_if_incomplete":
        error = shop.refused("/v1/subscriptions", 402, **given)
        assert (error["type"], error["code"]) == ("card_error", "card_declined")
        assert shop.get(f"/v1/subscriptions?customer={customer}&status=all")["data"] == []
        return
    subscription = shop.post("/v1/subscriptions", **given)
    assert subscription["status"] == "incomplete"
    invoice = shop.get(f"/v1/invoices/{subscription['latest_invoice']}")
    assert invoice["attempt_count"] == (0 if behavior == "default_incomplete" else 1)


def test_a_card_that_declines_cannot_be_attached(shop: Running) -> None:
    customer = shop.customer(None)["id"]
    error = shop.refused("/v1/payment_methods/pm_card_chargeDeclined/attach", 402, customer=customer)
    assert (error["code"], error["decline_code"]) == ("card_declined", "generic_decline")
