"""Ends and pauses: cancelled now or later, with or without proration; collection paused; a subscription paused."""

from __future__ import annotations

import pytest

from .timeline import DAY, HOUR, START, Timeline


def _cancel(life: Timeline, subscription: str, **data: str) -> dict[str, object]:
    answer = life.shop.call("DELETE", f"/v1/subscriptions/{subscription}", data or None)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_a_cancellation_now_bills_and_credits_nothing_unless_asked(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"])
    fresh.to(START + 7 * DAY)
    ended = _cancel(fresh, subscription)
    assert (ended["status"], ended["ended_at"]) == ("canceled", START + 7 * DAY)
    assert len(fresh.invoices()) == 1
    assert fresh.shop.get(f"/v1/customers/{fresh.customer}")["balance"] == 0
    fresh.to(START + 60 * DAY)
    assert len(fresh.invoices()) == 1


def test_a_prorated_cancellation_invoiced_now_credits_the_time_that_is_left(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"])
    fresh.to(START + 7 * DAY)  # of 28
    ended = _cancel(fresh, subscription, prorate="true", invoice_now="true")
    last = fresh.invoices()[-1]
    assert (last["total"], last["status"], ended["latest_invoice"]) == (-2100, "paid", last["id"])
    assert fresh.shop.get(f"/v1/customers/{fresh.customer}")["balance"] == -2100


@pytest.mark.parametrize(("behavior", "balance"), [("none", 0), ("create_prorations", -1400)])
def test_a_cancellation_on_a_day_within_the_period_prorates_if_asked(
    fresh: Timeline, behavior: str, balance: int
) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"])
    path = f"/v1/subscriptions/{subscription}"
    found = fresh.shop.post(path, cancel_at=str(START + 14 * DAY), proration_behavior=behavior)
    assert (found["status"], found["cancel_at"], found["cancel_at_period_end"]) == ("active", START + 14 * DAY, False)
    fresh.to(START + 14 * DAY + HOUR)
    assert fresh.subscription(subscription)["ended_at"] == START + 14 * DAY
    assert fresh.shop.get(f"/v1/customers/{fresh.customer}")["balance"] == balance


def test_a_cancellation_taken_back_renews_as_before(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"])
    path = f"/v1/subscriptions/{subscription}"
    end = fresh.shop.post(path, cancel_at="min_period_end")["cancel_at"]
    fresh.to(START + 5 * DAY)
    taken_back = fresh.shop.post(path, cancel_at="")
    assert (taken_back["cancel_at"], taken_back["canceled_at"]) == (None, None)
    assert taken_back["cancellation_details"]["reason"] is None
    fresh.to(end + HOUR)
    assert fresh.subscription(subscription)["status"] == "active"
    assert [invoice["amount_paid"] for invoice in fresh.invoices()] == [2800, 2800]


@pytest.mark.parametrize(
    ("behavior", "status"), [("void", "void"), ("mark_uncollectible", "uncollectible"), ("keep_as_draft", "draft")]
)
def test_paused_collection_leaves_renewals_unpaid_until_it_ends(fresh: Timeline, behavior: str, status: str) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"])
    until = START + 40 * DAY
    path = f"/v1/subscriptions/{subscription}"
    given = {"pause_collection[behavior]": behavior, "pause_collection[resumes_at]": str(until)}
    assert fresh.shop.post(path, **given)["status"] == "active"
    fresh.to(START + 28 * DAY + 2 * HOUR)
    assert fresh.invoices()[-1]["status"] == status
    assert fresh.subscription(subscription)["status"] == "active"
    fresh.to(until)
    assert fresh.subscription(subscription)["pause_collection"] is None
    fresh.to(START + 59 * DAY + 2 * HOUR)
    assert fresh.invoices()[-1]["status"] == "paid"


def test_collection_is_resumed_by_an_empty_value(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"])
    path = f"/v1/subscriptions/{subscription}"
    fresh.shop.post(path, **{"pause_collection[behavior]": "void"})
    assert fresh.shop.post(path, pause_collection="")["pause_collection"] is None
    fresh.to(START + 28 * DAY + HOUR)
    assert fresh.invoices()[-1]["status"] == "paid"


def test_a_paused_subscription_is_not_billed_and_resumes_with_a_new_period(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"])
    fresh.to(START + 14 * DAY)
    paused = fresh.shop.post(f"/v1/subscriptions/{subscription}/pause")
    assert (paused["status"], paused["status_details"]["paused"]["type"]) == ("paused", "subscription")
    assert len(fresh.events(type="customer.subscription.paused")) == 1
    fresh.to(START + 50 * DAY)
    assert len(fresh.invoices()) == 1
    resumed = fresh.shop.post(f"/v1/subscriptions/{subscription}/resume")
    assert (resumed["status"], resumed["billing_cycle_anchor"]) == ("active", START + 50 * DAY)
    assert resumed["items"]["data"][0]["current_period_start"] == START + 50 * DAY
    # Half of the first period was not used.
    assert (fresh.invoices()[-1]["amount_paid"], fresh.invoices()[-1]["status"]) == (1400, "paid")
    assert len(fresh.events(type="customer.subscription.resumed")) == 1


def test_a_trial_can_be_ended_at_once_and_is_paid_then(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"], trial_period_days="30")
    fresh.to(START + 3 * DAY)
    found = fresh.shop.post(f"/v1/subscriptions/{subscription}", trial_end="now")
    assert (found["status"], found["billing_cycle_anchor"]) == ("active", START + 3 * DAY)
    assert fresh.invoices()[-1]["amount_paid"] == 2800
    fresh.to(START + 29 * DAY)
    assert fresh.events(type="customer.subscription.trial_will_end") == []


def test_a_trial_can_be_made_longer(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"], trial_period_days="7")
    fresh.shop.post(f"/v1/subscriptions/{subscription}", trial_end=str(START + 20 * DAY))
    fresh.to(START + 16 * DAY)
    assert fresh.subscription(subscription)["status"] == "trialing"
    assert fresh.events(type="customer.subscription.trial_will_end") == []
    fresh.to(START + 20 * DAY + HOUR)
    assert len(fresh.events(type="customer.subscription.trial_will_end")) == 1
    assert fresh.invoices()[-1]["amount_paid"] == 2800


def test_a_trial_of_less_than_three_days_warns_at_once(fresh: Timeline) -> None:
    fresh.subscribe(fresh.shop.price(2800)["id"], trial_period_days="2")
    fresh.to(START + 1)
    assert [event["created"] for event in fresh.events(type="customer.subscription.trial_will_end")] == [START]


def test_giving_up_the_latest_invoice_makes_a_past_due_subscription_active(fresh: Timeline) -> None:
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"])
    fresh.use("pm_card_chargeCustomerFail")
    fresh.to(START + 28 * DAY + HOUR)
    assert fresh.subscription(subscription)["status"] == "past_due"
    fresh.shop.post(f"/v1/invoices/{fresh.invoices()[-1]['id']}/mark_uncollectible")
    assert fresh.subscription(subscription)["status"] == "active"


def test_an_open_invoice_paid_while_the_next_is_a_draft_restores_the_subscription(fresh: Timeline) -> None:
    fresh.shop.control("PUT", "settings", {"retry_days": [30], "end_state": "past_due"})
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"])
    fresh.use("pm_card_chargeCustomerFail")
    fresh.to(START + 28 * DAY + HOUR)
    fresh.to(START + 59 * DAY + 60)
    owed, draft = fresh.invoices()[-2:]
    assert (owed["status"], draft["status"]) == ("open", "draft")
    fresh.use("pm_card_visa")
    fresh.shop.post(f"/v1/invoices/{owed['id']}/pay")
    assert fresh.subscription(subscription)["status"] == "active"
