"""Mails about limits, trials, refunds and cancellations: whom they reach, and that none comes twice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.notify.conftest import BRAND, Billing, Inboxes, Notify, Publish, paid, stamp, until
from tests.integration.notify.test_mails import text_of
from tollway.billing.v1 import entitlement_pb2 as entitlement
from tollway.billing.v1.events_pb2 import (
    CANCELLATION_PHASE_ENDED,
    CANCELLATION_PHASE_SCHEDULED,
    Brand,
    InvoiceRefunded,
    SubscriptionCanceled,
    TrialEnding,
)
from tollway.billing.v1.recipient_pb2 import Recipient
from tollway.quota.v1.events_pb2 import CapReached, UsageThresholdReached

LIMITS = (
    entitlement.Limit(
        name="messages_per_month",
        kind=entitlement.LIMIT_KIND_QUOTA,
        period=entitlement.PERIOD_MONTH,
        limit=100_000,
    ),
    entitlement.Limit(name="cap", kind=entitlement.LIMIT_KIND_CAP, period=entitlement.PERIOD_BILLING),
)


@pytest.fixture(autouse=True)
def known(billing: Billing) -> Recipient:
    billing.recipients["acct_1"] = recipient = Recipient(
        account_id="acct_1", account_name="Ada & Sons", customer_email="ada@example.com", brand=BRAND, limits=LIMITS
    )
    return recipient


def threshold(percent: int = 80, month: int = 3, **changes: Any) -> UsageThresholdReached:
    facts: dict[str, Any] = {
        "account_id": "acct_1",
        "limit_name": "messages_per_month",
        "meters": ["messages"],
        "percent": percent,
        "used": percent * 1000,
        "limit": 100_000,
        "period_start": stamp(f"2026-{month:02}-01T00:00:00Z"),
        "period_end": stamp(f"2026-{month + 1:02}-01T00:00:00Z"),
    }
    return UsageThresholdReached(**(facts | changes))


def cap(limit: int = 500, month: int = 3, **changes: Any) -> CapReached:
    facts: dict[str, Any] = {
        "account_id": "acct_1",
        "limit_name": "cap",
        "meters": ["live_downloads"],
        "used": limit,
        "limit": limit,
        "auto_stop": True,
        "period_start": stamp(f"2026-{month:02}-05T00:00:00Z"),
        "period_end": stamp(f"2026-{month + 1:02}-05T00:00:00Z"),
    }
    return CapReached(**(facts | changes))


def canceled(phase: Any, end: str = "2026-04-01T00:00:00Z", **changes: Any) -> SubscriptionCanceled:
    return SubscriptionCanceled(
        account_id="acct_1",
        subscription_id="sub_1",
        phase=phase,
        tier_name="Pro",
        end_time=stamp(end),
        customer_email="ada@example.com",
        brand=BRAND,
        **changes,
    )


def refunded(**changes: Any) -> InvoiceRefunded:
    facts: dict[str, Any] = {
        "account_id": "acct_1",
        "refund_id": "re_1",
        "amount": 2900,
        "currency": "jpy",
        "invoice_number": "ABCD1234-0007",
        "by_policy": True,
        "refund_time": stamp("2026-03-02T00:00:00Z"),
        "customer_email": "ada@example.com",
        "brand": BRAND,
    }
    return InvoiceRefunded(**(facts | changes))


async def told(notify: Notify, kind: str) -> dict[str, str]:
    """What became of the messages of a kind, by what they are about."""
    messages = (await notify.messages(page_size=500)).messages
    return {m.subject_id: m.error or str(m.state) for m in messages if m.kind == kind}


async def after(publish: Publish, notify: Notify) -> None:
    """Returns when everything published before was dealt with, as far as its turn is concerned."""
    await publish(paid(99))
    await notify.reaches("SENT", "in_99")


async def test_a_threshold_is_told_to_whom_billing_names_with_used_limit_and_reset(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(threshold())
    (mail,) = await inboxes.wait(1)
    assert (mail["To"], mail["Subject"]) == ("ada@example.com", "Skytale: 80% of your messages used")
    for kind in ("plain", "html"):
        for fact in ("80,000", "100,000", "April 1, 2026", "https://skytale.example/billing", "this month"):
            assert fact in text_of(mail, kind)


async def test_thresholds_are_told_once_for_each_percentage_and_period_whatever_is_repeated(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    event_id = await publish(threshold(80))
    await inboxes.wait(1)
    await publish(threshold(80), event_id)
    await publish(threshold(80, used=81_000))
    await publish(threshold(100))
    await inboxes.wait(2)
    await publish(threshold(80, month=4))
    await inboxes.wait(3)
    await after(publish, notify)
    assert [mail["Subject"] for mail in inboxes.mails[:3]] == [
        "Skytale: 80% of your messages used",
        "Skytale: you have used all your messages",
        "Skytale: 80% of your messages used",
    ]
    assert len(inboxes.mails) == 4


async def test_a_lower_threshold_that_comes_late_or_still_waits_is_not_told(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    inboxes.answers = ["451 later"]
    await publish(threshold(50))
    await until(lambda: not inboxes.answers)
    await publish(threshold(100))
    await inboxes.wait(1)
    await publish(threshold(80))

    async def settled() -> bool:
        return len(await told(notify, "usage_threshold")) == 3

    await until(settled)
    outcome = await told(notify, "usage_threshold")
    reason = "more of the limit was used before this could be sent"
    assert sorted(outcome.values(), key=len)[1:] == [reason, reason]
    assert [mail["Subject"] for mail in inboxes.mails] == ["Skytale: you have used all your messages"]


async def test_a_cap_is_told_once_a_period_and_again_when_a_raised_one_is_reached(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(threshold(100, limit_name="cap", meters=["live_downloads"], used=500, limit=500))
    await publish(cap(500))
    await publish(cap(500))
    await inboxes.wait(1)
    await publish(cap(800))
    await inboxes.wait(2)
    await publish(cap(500, month=4, auto_stop=False))
    await inboxes.wait(3)
    await after(publish, notify)
    assert [mail["Subject"] for mail in inboxes.mails[:3]] == [
        "Skytale: live downloads are stopped at your cap",
        "Skytale: live downloads are stopped at your cap",
        "Skytale: your cap on live downloads is reached",
    ]
    assert len(inboxes.mails) == 4
    assert await told(notify, "usage_threshold") != {}
    assert set((await told(notify, "usage_threshold")).values()) == {"the notice of the cap says it"}


async def test_while_billing_is_away_a_threshold_waits_and_nothing_else_does(
    notify: Notify, inboxes: Inboxes, publish: Publish, billing: Billing
) -> None:
    billing.down = True
    await publish(threshold())
    await until(lambda: billing.asked >= 2)
    await publish(paid(1))
    await inboxes.wait(1)
    billing.down = False
    await inboxes.wait(2, within=40)
    assert inboxes.mails[1]["Subject"] == "Skytale: 80% of your messages used"


async def test_an_account_that_billing_does_not_know_is_written_nothing(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(threshold(account_id="acct_nobody"))
    await after(publish, notify)
    assert len(inboxes.mails) == 1
    assert await told(notify, "usage_threshold") == {}


async def test_refunds_trials_and_cancellations_are_told_once_each(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    trial = TrialEnding(
        account_id="acct_1",
        subscription_id="sub_1",
        tier_name="Pro",
        trial_end_time=stamp("2026-03-15T00:00:00Z"),
        amount_due=2900,
        currency="usd",
        customer_email="ada@example.com",
        brand=BRAND,
    )
    for event in (refunded(), trial, canceled(CANCELLATION_PHASE_SCHEDULED)):
        await publish(event)
        await publish(event)
    await inboxes.wait(3)
    await after(publish, notify)
    subjects = {mail["Subject"]: mail for mail in inboxes.mails[:3]}
    assert set(subjects) == {
        "Your Skytale refund of ¥2,900",
        "Your Skytale trial ends on March 15, 2026",
        "Your Skytale plan ends on April 1, 2026",
    }
    assert len(inboxes.mails) == 4
    assert "subscription has ended with this refund" in text_of(subjects["Your Skytale refund of ¥2,900"], "html")
    assert "ABCD1234-0007" in text_of(subjects["Your Skytale refund of ¥2,900"], "plain")
    assert "$29.00" in text_of(subjects["Your Skytale trial ends on March 15, 2026"], "plain")


async def test_a_plan_that_has_ended_is_not_told_to_end_any_more(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(canceled(CANCELLATION_PHASE_ENDED))
    await inboxes.wait(1)
    await publish(canceled(CANCELLATION_PHASE_SCHEDULED))

    async def settled() -> bool:
        return len(await told(notify, "cancellation")) == 2

    await until(settled)
    assert "the plan had ended before this could be sent" in (await told(notify, "cancellation")).values()
    assert [mail["Subject"] for mail in inboxes.mails] == ["Your Skytale plan has ended"]


async def test_a_brand_with_a_sender_writes_from_it_in_header_and_envelope(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    brand = Brand(name="Skytale", sender="billing@skytale.example")
    await publish(refunded(brand=brand))
    await publish(refunded(refund_id="re_2", brand=Brand(name="X", sender="a@b.example\r\nBcc: eve@evil.example")))
    await inboxes.wait(2)
    senders = {str(mail["From"]): envelope for mail, envelope in zip(inboxes.mails, inboxes.envelopes, strict=True)}
    assert senders["Skytale <billing@skytale.example>"].mail_from == "billing@skytale.example"
    assert senders["X <billing@localhost>"].mail_from == "billing@localhost"
    assert all(mail["Bcc"] is None for mail in inboxes.mails)
