"""Claims about webhooks and the sync (DESIGN §4, §11.7, 11.10–12), on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.billing.application import webhooks
from services.billing.application.sync import HOLD, sync
from services.billing.batches import Batches
from services.billing.errors import EventMalformed, LivemodeMismatch, SignatureInvalid
from tests.fakes.payments import START
from tests.infra.servers import Templates
from tests.integration.billing.conftest import Billing, event, running_billing, signed


async def paid_account(billing: Billing, email: str = "ada@example.com") -> tuple[str, str, str]:
    """Signed up, checked out and paid; no webhook came yet. Account, customer and subscription ids."""
    account_id = (await billing.sign_up(email)).account.id
    subscription = billing.payments.pay(await billing.check_out(account_id))
    return account_id, subscription.customer_id, subscription.id


async def test_a_payment_lifts_the_tier_and_announces_it_with_the_invoice(billing: Billing) -> None:
    account_id, customer_id, subscription_id = await paid_account(billing)
    await billing.hear_of(customer_id, "customer.subscription.created")
    await billing.settle()
    state = (await billing.state(account_id)).entitlement
    assert (state.tier, state.status, state.version, state.subscription_id) == ("pro", "active", 2, subscription_id)
    changed = (await billing.announced("EntitlementsChanged"))[-1].entitlements
    assert (changed.version, changed.limits[0].limit) == (2, 1_000_000)
    assert [(t.previous_tier, t.tier) for t in await billing.announced("TierChanged")] == [
        ("", "free"),
        ("free", "pro"),
    ]
    (paid,) = await billing.announced("InvoicePaid")
    assert (paid.invoice.amount_paid, paid.invoice.currency, paid.invoice.number) == (2900, "usd", "FAKE-0001")


async def test_the_same_event_twice_is_stored_once_and_read_once(billing: Billing) -> None:
    account_id, customer_id, _ = await paid_account(billing)
    payload = event("customer.subscription.created", {"id": "sub_1", "object": "subscription", "customer": customer_id})
    first, *others = await asyncio.gather(*(billing.hear(payload) for _ in range(5)))
    assert sorted([first.duplicate, *(other.duplicate for other in others)]) == [False, True, True, True, True]
    await billing.settle()
    assert billing.payments.reads == 1
    assert (await billing.state(account_id)).entitlement.version == 2


async def test_events_that_come_together_are_kept_in_one_commit_as_they_would_be_alone(billing: Billing) -> None:
    one, other = await paid_account(billing), await paid_account(billing, "grace@example.com")
    stored = event("customer.subscription.updated", {"id": "sub_0", "object": "subscription", "customer": one[1]})
    await billing.hear(stored)
    await billing.settle()
    together = Batches(lambda heard: webhooks.keep(heard, billing.context))
    hearing = Billing(replace(billing.context, together=together.do), billing.payments, billing.engine)
    twice = event("invoice.paid", {"id": "in_1", "object": "invoice", "customer": one[1]})
    hints = {"client_reference_id": "acct_of_nobody"}
    payloads = [
        event("customer.subscription.updated", {"id": "s", "object": "subscription", "customer": one[1]}),
        event("customer.subscription.updated", {"id": "s", "object": "subscription", "customer": other[1]}),
        stored,
        twice,
        twice,
        event("charge.succeeded", {"id": "ch_1", "object": "charge", "customer": one[1]}),
        event("checkout.session.completed", {"id": "cs", "object": "checkout.session", "customer": "cus_x"} | hints),
        event("invoice.upcoming", {"object": "invoice", "customer": None}),
    ]
    heard = await asyncio.gather(*(hearing.hear(payload) for payload in payloads))
    assert [each.duplicate for each in heard] == [False, False, True, False, True, False, False, False]
    transactions = "SELECT count(DISTINCT xmin::text) FROM webhook_event"
    assert await billing.rows(transactions) == [(2,)], "the one that was stored before, and the others"
    # One mark for each account, whatever it was told of.
    assert sorted(await billing.rows("SELECT account_id, wanted - done FROM billing_sync")) == sorted(
        [(one[0], 1), (other[0], 1)]
    )
    await billing.settle()
    rows = await billing.rows("SELECT status, count(*) FROM webhook_event GROUP BY 1")
    assert dict(rows) == {"applied": 4, "ignored": 1, "ignored_foreign": 2}
    assert [(await billing.state(each[0])).entitlement.tier for each in (one, other)] == ["pro", "pro"]


async def test_ten_events_of_one_checkout_become_one_read(billing: Billing) -> None:
    _, customer_id, _ = await paid_account(billing)
    for _ in range(10):
        await billing.hear_of(customer_id)
    await billing.settle()
    assert billing.payments.reads == 1
    assert await billing.rows("SELECT status, count(*) FROM webhook_event GROUP BY 1") == [("applied", 10)]


async def test_a_lost_invoice_paid_is_found_by_any_later_event(billing: Billing) -> None:
    _, customer_id, _ = await paid_account(billing)
    await billing.hear_of(customer_id, "customer.subscription.updated")
    await billing.settle()
    assert len(await billing.announced("InvoicePaid")) == 1


async def test_an_event_of_a_customer_that_a_crash_kept_us_from_noting_finds_its_account(billing: Billing) -> None:
    account_id, customer_id, _ = await paid_account(billing)
    async with billing.context.unit_of_work() as uow:
        await uow.connection.exec_driver_sql("UPDATE account SET stripe_customer_id = NULL")
        await uow.commit()
    await billing.hear_of(customer_id)
    await billing.settle()
    assert (await billing.state(account_id)).entitlement.tier == "pro"


async def test_an_event_of_a_foreign_customer_ends_as_ignored_foreign(billing: Billing) -> None:
    await billing.hear_of("cus_stranger")
    await billing.settle()
    assert await billing.rows("SELECT status FROM webhook_event") == [("ignored_foreign",)]


async def test_a_customer_of_another_installation_at_the_same_stripe_keeps_nobody_waiting(billing: Billing) -> None:
    account_id, customer_id, _ = await paid_account(billing)
    billing.payments.customers["cus_of_theirs"] = "acct_of_theirs"
    async with billing.context.unit_of_work() as uow:
        await uow.connection.exec_driver_sql("UPDATE account SET stripe_customer_id = NULL")
        await uow.commit()
    await billing.hear_of("cus_of_theirs")
    await billing.hear_of(customer_id)
    await billing.settle()
    rows = await billing.rows("SELECT customer_id, status FROM webhook_event")
    assert dict(rows) == {"cus_of_theirs": "ignored_foreign", customer_id: "applied"}
    assert (await billing.state(account_id)).entitlement.tier == "pro"


async def test_a_type_that_nobody_handles_is_stored_and_ignored(billing: Billing) -> None:
    await billing.hear(event("charge.succeeded", {"id": "ch_1", "object": "charge", "customer": "cus_1"}))
    assert await billing.rows("SELECT status FROM webhook_event") == [("ignored",)]


async def test_a_failed_charge_keeps_skytales_tier_and_is_announced_once_an_attempt(billing: Billing) -> None:
    account_id, customer_id, subscription_id = await paid_account(billing)
    await billing.hear_of(customer_id)
    await billing.settle()
    subscription = billing.payments.change(subscription_id, status="past_due")
    invoice = billing.payments.bill(subscription, paid=False)
    thing = {"id": invoice.id, "object": "invoice", "customer": customer_id}
    for _ in range(3):
        await billing.hear(event("invoice.payment_failed", thing))
        await billing.settle()
    state = (await billing.state(account_id)).entitlement
    assert (state.tier, state.status) == ("pro", "past_due")
    (failed,) = await billing.announced("InvoicePaymentFailed")
    assert (failed.attempt_count, failed.invoice.amount_due) == (1, 2900)
    billing.payments.settle(invoice.id)
    billing.payments.change(subscription_id, status="active")
    await billing.hear(event("invoice.paid", thing))
    await billing.settle()
    assert (await billing.state(account_id)).entitlement.status == "active"
    assert [paid.invoice.id for paid in await billing.announced("InvoicePaid")] == ["in_1", invoice.id]


async def test_a_late_deleted_of_an_old_subscription_does_not_end_the_new_one(billing: Billing) -> None:
    account_id, customer_id, old = await paid_account(billing)
    billing.payments.change(old, status="canceled")
    await billing.hear_of(customer_id)
    await billing.settle()
    billing.payments.pay(await billing.check_out(account_id))
    await billing.hear_of(customer_id)
    await billing.settle()
    await billing.hear_of(customer_id, "customer.subscription.deleted")
    await billing.settle()
    assert (await billing.state(account_id)).entitlement.tier == "pro"


async def test_a_slow_read_cannot_overwrite_what_a_faster_one_saved(billing: Billing) -> None:
    account_id, customer_id, subscription_id = await paid_account(billing)
    await billing.hear_of(customer_id)
    async with billing.context.unit_of_work() as uow:
        (slow,) = await uow.marks.claim("claim_slow", timedelta(0), 1)  # a hold that is over at once
        await uow.commit()
    stale_read = billing.payments.read

    async def read_while_another_works(*args: object, **kwargs: object) -> object:
        read = await stale_read(*args, **kwargs)  # type: ignore[arg-type]
        billing.payments.read = stale_read  # type: ignore[method-assign]
        billing.payments.change(subscription_id, status="canceled")
        await billing.settle()
        return read

    billing.payments.read = read_while_another_works  # type: ignore[method-assign, assignment]
    await sync(slow, "claim_slow", billing.context)
    assert (await billing.state(account_id)).entitlement.tier == "free"


async def test_a_mark_that_comes_during_a_read_leads_to_another_read(billing: Billing) -> None:
    account_id, customer_id, subscription_id = await paid_account(billing)
    await billing.hear_of(customer_id)
    async with billing.context.unit_of_work() as uow:
        (claimed,) = await uow.marks.claim("claim_a", HOLD, 1)
        await uow.commit()
    real_read = billing.payments.read

    async def read_then_change(*args: object, **kwargs: object) -> object:
        read = await real_read(*args, **kwargs)  # type: ignore[arg-type]
        billing.payments.change(subscription_id, status="canceled")
        await billing.hear_of(customer_id)
        return read

    billing.payments.read = read_then_change  # type: ignore[method-assign, assignment]
    await sync(claimed, "claim_a", billing.context)
    billing.payments.read = real_read  # type: ignore[method-assign]
    assert (await billing.state(account_id)).entitlement.tier == "pro"
    await billing.settle()
    assert (await billing.state(account_id)).entitlement.tier == "free"


PAYLOAD = event("customer.subscription.updated", {"id": "sub_1", "object": "subscription", "customer": "cus_1"})


@pytest.mark.parametrize(
    "sign",
    [
        lambda: "x",
        lambda: "t=,v1=",
        lambda: "v1=abc",
        lambda: "t=1,v1=abc",
        lambda: "t=abc,v1=abc",
        lambda: signed(PAYLOAD, secret="whsec_other"),
        lambda: signed(PAYLOAD + b" "),
        lambda: signed(PAYLOAD, age_s=900),
        lambda: signed(PAYLOAD, age_s=-900),
        lambda: signed(PAYLOAD).replace("v1=", "v0="),
        lambda: "t=99999999999999999999,v1=00",
        lambda: "ü" * 20,
    ],
    ids=[
        "word",
        "empty",
        "no-time",
        "old",
        "no-number",
        "other-secret",
        "other-body",
        "stale",
        "future",
        "other-scheme",
        "huge",
        "not-ascii",
    ],
)
async def test_a_forged_stale_or_future_signature_stores_nothing(billing: Billing, sign: Callable[[], str]) -> None:
    # Signed now: a run may take longer than a signature is good for.
    with pytest.raises(SignatureInvalid):
        await billing.hear(PAYLOAD, sign())
    assert await billing.rows("SELECT 1 FROM webhook_event") == []


async def test_one_good_signature_among_several_is_enough(billing: Billing) -> None:
    """A rolled secret gives several v1."""
    stamp = int(time.time())
    old = hmac.new(b"whsec_old", f"{stamp}.".encode() + PAYLOAD, hashlib.sha256).hexdigest()
    await billing.hear(PAYLOAD, signed(PAYLOAD).replace(",v1=", f",v1={old},v1="))
    assert len(await billing.rows("SELECT 1 FROM webhook_event")) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"id": "evt_1"}',
        b'{"id": 1, "type": "x", "created": 1, "data": {"object": {}}}',
        b'{"id": "x", "type": "x", "created": 1, "data": {"object": {}}}',
        b'{"id": "evt_1", "type": "x", "created": "now", "data": {"object": {}}}',
        b'{"id": "evt_1", "type": "x", "created": 1, "data": {"object": []}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
async def test_a_signed_body_that_is_no_event_is_refused(billing: Billing, payload: bytes) -> None:
    with pytest.raises((EventMalformed, SignatureInvalid)):
        await billing.hear(payload)
    assert await billing.rows("SELECT 1 FROM webhook_event") == []


async def test_a_live_event_is_refused_by_a_test_installation(billing: Billing) -> None:
    with pytest.raises(LivemodeMismatch):
        await billing.hear(event("invoice.paid", {"id": "in_1", "object": "invoice"}, livemode=True))


ACTIONS = st.lists(
    st.sampled_from(
        ["pay", "past_due", "unpaid", "recover", "cancel_later", "resume", "cancel", "bill", "hear", "sync"]
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None)
@given(actions=ACTIONS, heard=st.lists(st.integers(0, 3), min_size=14, max_size=14))
def test_whatever_is_lost_doubled_or_late_one_last_event_brings_local_state_to_stripes(
    templates: Templates, actions: list[str], heard: list[int]
) -> None:
    """DESIGN §11.10 and 11.11: `heard` says how many of an action's webhooks arrive, none included."""
    with templates.copy("billing") as dsn:
        asyncio.run(_story(dsn, actions, heard))


async def _story(dsn: str, actions: list[str], heard: list[int]) -> None:
    async with running_billing(dsn) as billing:
        await _play(billing, actions, heard)


async def _play(billing: Billing, actions: list[str], heard: list[int]) -> None:
    payments = billing.payments
    account_id = (await billing.sign_up()).account.id
    customer_id = await payments.create_customer(account_id, "", "")
    price_id = payments.prices["skytale_pro_month"]
    for action, times in zip(actions, heard, strict=False):
        live = next((s for s in payments.subscriptions.values() if s.live), None)
        if action == "sync":
            await billing.settle()
        elif action == "pay" and live is None:
            payments.subscribe(customer_id, price_id, "skytale_pro_month")
        elif live is not None:
            _act(billing, live.id, action)
        for _ in range(times):
            thing = {"id": "sub_x", "object": "subscription", "customer": customer_id, "metadata": {}}
            payload = event("customer.subscription.updated", thing)
            await billing.hear(payload)
            await billing.hear(payload)
    for invoice in payments.invoices.values():
        thing = {"id": invoice.id, "object": "invoice", "customer": customer_id}
        await billing.hear(event("invoice.updated", thing))
    await billing.hear_of(customer_id)
    await billing.settle()
    await _check(billing, account_id)


def _act(billing: Billing, subscription_id: str, action: str) -> None:
    payments = billing.payments
    subscription = payments.subscriptions[subscription_id]
    if action in {"past_due", "unpaid"}:
        payments.change(subscription_id, status=action)
    elif action == "recover":
        payments.change(subscription_id, status="active")
        for invoice in list(payments.invoices.values()):
            payments.settle(invoice.id)
    elif action in {"cancel_later", "resume"}:
        payments.change(subscription_id, cancel_at=subscription.period_end if action == "cancel_later" else None)
    elif action == "cancel":
        payments.change(subscription_id, status="canceled", ended_at=START + timedelta(days=9))
    elif action == "bill":
        payments.bill(subscription, paid=False)


async def _check(billing: Billing, account_id: str) -> None:
    payments = billing.payments
    async with billing.context.unit_of_work() as uow:
        local = {s.id: s for s in await uow.snapshots.subscriptions(account_id)}
    assert local == payments.subscriptions
    live = [s for s in payments.subscriptions.values() if s.live]
    state = (await billing.state(account_id)).entitlement
    if live and live[0].status in {"active", "trialing"}:
        assert state.tier == "pro"
    if not live or live[0].status == "unpaid":
        assert state.tier == "free"
    # Each version has its event, in order and without a gap (11.7).
    versions = [e.entitlements.version for e in await billing.announced("EntitlementsChanged")]
    assert versions == list(range(1, state.version + 1))
    # Each paid invoice was announced once, each attempt once (11.6's first half).
    paid = [e.invoice.id for e in await billing.announced("InvoicePaid")]
    assert sorted(paid) == sorted(i.id for i in payments.invoices.values() if i.status == "paid")
    failed = [(e.invoice.id, e.attempt_count) for e in await billing.announced("InvoicePaymentFailed")]
    assert len(failed) == len(set(failed))
    # Every verified event has a final status (11.12).
    assert await billing.rows("SELECT 1 FROM webhook_event WHERE status = 'pending'") == []
