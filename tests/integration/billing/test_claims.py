"""Claims about the sync's claim: a living worker keeps its account, a dead one gives it back within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from services.billing.application import sync
from services.billing.ports import FromStripe
from services.billing.storage.webhooks import Claimed
from tests.fakes.payments import FakePayments
from tests.integration.billing.conftest import Billing, event


@asynccontextmanager
async def _working(billing: Billing) -> AsyncIterator[None]:
    work = asyncio.create_task(sync.Worker(billing.context).run())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.wait([work])


async def _paid(billing: Billing) -> str:
    account_id = (await billing.sign_up()).account.id
    subscription = billing.payments.pay(await billing.check_out(account_id))
    await billing.hear_of(subscription.customer_id)
    return account_id


async def _claim_until(billing: Billing) -> datetime:
    ((until,),) = await billing.rows("SELECT claim_until FROM billing_sync")
    assert isinstance(until, datetime), "nobody holds the account"
    return until


async def _a_moment() -> None:
    """Only rows tell how far a worker is."""
    await asyncio.sleep(0.05)


async def test_a_read_longer_than_the_hold_is_not_begun_by_another_worker(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "HOLD", timedelta(seconds=0.6))
    begun, answer = asyncio.Event(), asyncio.Event()

    async def slow(customer_id: str, invoice_ids: list[str], *, want_last_paid: bool) -> FromStripe:
        begun.set()
        await answer.wait()
        return await FakePayments.read(billing.payments, customer_id, invoice_ids, want_last_paid=want_last_paid)

    monkeypatch.setattr(billing.payments, "read", slow)
    account_id = await _paid(billing)
    async with _working(billing), asyncio.timeout(20):
        await begun.wait()
        first = await _claim_until(billing)
        async with _working(billing):
            # Two holds later the claim is still the first worker's.
            while await _claim_until(billing) < first + timedelta(seconds=1.2):
                await _a_moment()
            assert await billing.rows("SELECT wanted - done FROM billing_sync") == [(1,)]
            answer.set()
            while (await billing.state(account_id)).entitlement.tier != "pro":
                await _a_moment()
    assert billing.payments.reads == 1


async def test_what_a_killed_worker_claimed_is_read_by_another_within_seconds(billing: Billing) -> None:
    account_id = await _paid(billing)
    async with billing.context.unit_of_work() as uow:
        assert await uow.marks.claim("claim_of_the_dead", sync.HOLD, 1) != []
        await uow.commit()
    async with _working(billing), asyncio.timeout(15):
        while (await billing.state(account_id)).entitlement.tier != "pro":
            await _a_moment()


async def test_an_event_claims_its_account_itself_unless_somebody_works_on_it(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    customer = billing.payments.pay(await billing.check_out(account_id)).customer_id
    begun: list[tuple[int, str]] = []
    eager = Billing(
        replace(
            billing.context,
            new_claim=lambda: f"claim_{len(begun)}",
            claimed=lambda claimed, claim: begun.append((claimed.wanted, claim)),
        ),
        billing.payments,
        billing.engine,
    )
    first = event("customer.subscription.updated", {"id": "sub_x", "object": "subscription", "customer": customer})
    await eager.hear(first)
    assert begun == [(1, "claim_0")]
    await eager.hear(first)  # a duplicate marks nothing
    await eager.hear_of(customer)
    assert begun == [(1, "claim_0")]
    assert await billing.rows("SELECT wanted, claim FROM billing_sync") == [(2, "claim_0")]
    await sync.sync(Claimed(account_id, 1, 0), "claim_0", billing.context)
    assert (await billing.state(account_id)).entitlement.tier == "pro"
    await billing.settle()
    assert await billing.rows("SELECT wanted, done FROM billing_sync") == [(2, 2)]
    # After a failure it waits for its time, however many events come.
    await eager.hear_of(customer)
    assert begun == [(1, "claim_0"), (3, "claim_1")]
    async with billing.context.unit_of_work() as uow:
        await uow.marks.fail(account_id, "claim_1", timedelta(seconds=60), "Unavailable")
        await uow.commit()
    await eager.hear_of(customer)
    assert len(begun) == 2
