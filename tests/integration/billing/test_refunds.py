"""The refund by policy, step by step, and money that goes back at Stripe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.billing.application import metering, refunds
from services.billing.domain.principal import Actor, ActorKind
from services.billing.domain.refund import Refund, State
from services.billing.errors import RefundRefused
from services.kit.inbox import Received
from tests.fakes.payments import START
from tests.integration.billing.conftest import Billing, event, running_billing
from tollway.quota.v1.events_pb2 import UsageRecorded

OWNER = Actor(ActorKind.SESSION, "usr_1")
LOOKUP = "manashiki_developer_month"


class Frozen:
    """A business clock that stands in the fake Stripe's first days."""

    def __init__(self) -> None:
        self.moment = START + timedelta(days=2)

    def now(self):  # type: ignore[no-untyped-def] # the port's: datetime
        return self.moment


@pytest.fixture
async def shop(billing_database: str) -> AsyncIterator[Billing]:
    async with running_billing(billing_database, Path("catalogs/manashiki.yaml")) as started:
        yield replace(started, context=replace(started.context, business=Frozen()))


async def paid(shop: Billing) -> str:
    """An account on paid; its id."""
    account_id = (await shop.sign_up()).account.id
    session = await shop.check_out(account_id, "paid")
    subscription = shop.payments.pay(session, LOOKUP)
    invoice = shop.payments.invoices["in_1"]
    shop.payments.invoices["in_1"] = replace(invoice, amount_due=1500, amount_paid=1500)
    await shop.hear_of(subscription.customer_id)
    await shop.settle()
    assert (await shop.state(account_id)).entitlement.tier == "paid"
    return account_id


async def ask(shop: Billing, account_id: str) -> Refund:
    """Asks for the refund while a worker syncs, as in a running service."""
    asking = asyncio.create_task(refunds.create_refund(account_id, OWNER, shop.context))
    while not asking.done():
        await shop.settle()
        await asyncio.wait([asking], timeout=0.05)
    return await asking


async def test_a_refund_ends_the_subscription_and_gives_the_base_fee_back(shop: Billing) -> None:
    account_id = await paid(shop)
    made = await ask(shop, account_id)
    assert (made.state, made.amount, made.used) == (State.REFUNDED, 1500, 0)
    assert (await shop.state(account_id)).entitlement.tier == "canceled"
    (told,) = await shop.announced("InvoiceRefunded")
    assert (told.refund_id, told.invoice_id, told.amount, told.by_policy) == (made.stripe_refund_id, "in_1", 1500, True)
    assert told.invoice_number == shop.payments.invoices["in_1"].number != ""
    actions = [row[0] for row in await shop.rows("SELECT action FROM audit_log ORDER BY id")]
    assert [a for a in actions if a.startswith("refund")] == ["refund.requested", "refund.made"]


async def test_what_was_used_is_reported_before_the_end_so_that_the_last_invoice_has_it(shop: Billing) -> None:
    account_id = await paid(shop)
    message = UsageRecorded(account_id=account_id, meter="live_downloads", used=70)
    message.period_start.FromDatetime(START)
    message.period_end.FromDatetime(START + timedelta(days=31))
    message.record_time.FromDatetime(START + timedelta(days=2))
    kind = message.DESCRIPTOR.full_name
    await metering.learn_usage(Received("evt_1", kind, account_id, START, message), shop.context)
    reported_at_the_end: list[int] = []
    end = shop.payments.cancel_subscription

    async def noting(subscription_id: str, key: str) -> None:
        reported_at_the_end.extend(report.units for report in shop.payments.reports.values())
        await end(subscription_id, key)

    shop.payments.cancel_subscription = noting  # type: ignore[method-assign]
    await ask(shop, account_id)
    assert reported_at_the_end == [70]
    (report,) = shop.payments.reports.values()
    assert report.stamp < shop.context.business.now()


async def test_asking_again_and_ten_times_at_once_gives_one_refund(shop: Billing) -> None:
    account_id = await paid(shop)
    asked = asyncio.gather(*(ask(shop, account_id) for _ in range(10)))
    made = await asked
    assert {each.stripe_refund_id for each in made} == {"re_1"}
    assert (await ask(shop, account_id)).id == made[0].id
    assert len(shop.payments.given_back) == 1
    assert len(await shop.announced("InvoiceRefunded")) == 1


@pytest.mark.parametrize(
    ("days", "used", "reason"),
    [
        (6, 99, ""),
        (7, 0, "REFUND_WINDOW_OVER"),
        (2, 100, "REFUND_USAGE_EXCEEDED"),
    ],
)
async def test_the_window_and_the_usage_bound_decide_and_a_refusal_ends_nothing(
    shop: Billing, days: int, used: int, reason: str
) -> None:
    account_id = await paid(shop)
    shop.context.business.moment = START + timedelta(days=days, seconds=1)  # type: ignore[attr-defined]
    shop.usage.used_in_all = used
    offer = await refunds.preview_refund(account_id, shop.context)
    assert offer.reason == reason
    if reason:
        with pytest.raises(RefundRefused) as refused:
            await refunds.create_refund(account_id, OWNER, shop.context)
        assert refused.value.error_reason == reason
        assert shop.payments.subscriptions["sub_1"].status == "active"
        assert await shop.rows("SELECT * FROM refund") == []
    else:
        assert "ends at once" in offer.message


async def test_without_a_paid_subscription_or_a_policy_there_is_nothing_to_refund(
    shop: Billing, billing_database: str
) -> None:
    account_id = (await shop.sign_up()).account.id
    assert (await refunds.preview_refund(account_id, shop.context)).reason == "NOTHING_TO_REFUND"
    policies = shop.context.catalog.policies.model_copy(update={"refund": None})
    without = replace(shop.context, catalog=shop.context.catalog.model_copy(update={"policies": policies}))
    assert (await refunds.preview_refund(account_id, without)).reason == "REFUND_NOT_OFFERED"


async def test_use_that_came_between_the_promise_and_the_end_is_counted(shop: Billing) -> None:
    account_id = await paid(shop)
    shop.usage.version = 0  # quota has not heard of the end yet
    asking = asyncio.create_task(ask(shop, account_id))
    while not any(row[0] == "counting" for row in await shop.rows("SELECT state FROM refund")):
        await asyncio.wait([asking], timeout=0.01)
    shop.usage.used_in_all, shop.usage.version = 100, 1_000_000
    made = await asking
    assert (made.state, made.used) == (State.REFUSED, 100)
    assert shop.payments.given_back == {}


async def test_a_stored_failure_is_tried_again_under_another_key(shop: Billing) -> None:
    account_id = await paid(shop)
    asking = asyncio.create_task(ask(shop, account_id))
    while not (found := await shop.rows("SELECT id FROM refund")):
        await asyncio.wait([asking], timeout=0.005)
    shop.payments.failing_keys.add(f"{found[0][0]}:refund:1")
    assert (await asking).state is State.REFUNDED
    assert len(shop.payments.given_back) == 1


async def test_who_dies_after_each_step_leaves_a_row_that_another_finishes(shop: Billing) -> None:
    """Each step runs, its outcome is thrown away, and the next process begins with the row as it was."""
    account_id = await paid(shop)
    offer = await refunds.preview_refund(account_id, shop.context)
    assert not offer.reason
    await refunds._begin(account_id, OWNER, shop.context)
    # The cancellation reached Stripe and the process died before it noted so.
    await shop.payments.cancel_subscription("sub_1", "any")
    await shop.hear_of("cus_" + account_id)
    await shop.settle()
    # So did the refund.
    (row,) = await shop.rows("SELECT id FROM refund")
    await shop.payments.refund("pi_in_1", 1500, row[0], "a key that was lost")
    made = await ask(shop, account_id)
    assert made.state is State.REFUNDED
    assert len(shop.payments.given_back) == 1


async def test_a_refund_made_at_stripe_is_recorded_and_told_once(shop: Billing) -> None:
    account_id = await paid(shop)
    shop.payments.give_back("in_1", 500)
    customer = f"cus_{account_id}"
    for kind in ("charge.refunded", "charge.refunded"):
        await shop.hear(event(kind, {"id": "ch_in_1", "object": "charge", "customer": customer}))
        await shop.settle()
    (told,) = await shop.announced("InvoiceRefunded")
    assert (told.amount, told.by_policy, told.invoice_id) == (500, False, "in_1")
    assert (await shop.state(account_id)).entitlement.tier == "paid", "money given back ends nothing"


async def test_a_dispute_names_no_customer_and_is_found_by_its_charge(shop: Billing) -> None:
    account_id = await paid(shop)
    seen = shop.payments.give_back("in_1", 1500, kind="dispute")
    dispute = {"id": seen.id, "object": "dispute", "charge": seen.charge_id}
    heard = await shop.hear(event("charge.dispute.created", dispute))
    await shop.settle()
    (told,) = await shop.announced("InvoiceDisputed")
    assert (told.account_id, told.dispute_id, told.status) == (account_id, seen.id, "needs_response")
    assert await shop.rows(f"SELECT status FROM webhook_event WHERE id = '{heard.event_id}'") == [("applied",)]
    shop.payments.given_back[seen.id] = replace(seen, status="lost")
    await shop.hear(event("charge.dispute.closed", dispute))
    await shop.settle()
    assert [each.status for each in await shop.announced("InvoiceDisputed")] == ["needs_response", "lost"]


async def test_a_dispute_of_a_foreign_charge_is_let_go(shop: Billing) -> None:
    heard = await shop.hear(event("charge.dispute.created", {"id": "du_9", "object": "dispute", "charge": "ch_alien"}))
    await shop.settle()
    assert await shop.rows(f"SELECT status FROM webhook_event WHERE id = '{heard.event_id}'") == [("ignored_foreign",)]
