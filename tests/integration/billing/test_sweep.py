"""The periodic sweep: every subscription at Stripe is compared with ours, and what differs is repaired."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from services.billing.application import sweep
from services.billing.domain.subscription import Invoice, Subscription
from services.billing.errors import StripeUnavailable
from services.kit import telemetry
from tests.integration.billing.conftest import Billing


async def subscriber(billing: Billing, name: str) -> tuple[str, str]:
    account_id = (await billing.sign_up(f"{name}@example.com")).account.id
    subscription = billing.payments.pay(await billing.check_out(account_id))
    await billing.hear_of(subscription.customer_id)
    await billing.settle()
    return account_id, subscription.id


async def pass_over(billing: Billing) -> int:
    """A whole pass, as fast as it goes; how many accounts differed."""
    wrong = 0
    while True:
        async with billing.engine.begin() as connection:
            await connection.exec_driver_sql("UPDATE sweep SET next_time = now()")
        found = await sweep.sweep_page(billing.context)
        assert found is not None
        wrong += found
        if await billing.rows("SELECT cursor FROM sweep") == [("",)]:
            return wrong


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PAGE", 2)


async def test_what_no_event_told_is_repaired_and_counted(
    billing: Billing, pages_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [await subscriber(billing, name) for name in ("ada", "bob", "cyd", "dan", "eve")]
    assert await pass_over(billing) == 0
    ended, unpaid = mine[0], mine[3]
    billing.payments.change(ended[1], status="canceled", ended_at=datetime.now(UTC))
    billing.payments.change(unpaid[1], status="past_due")
    counted: list[tuple[str, float]] = []
    monkeypatch.setattr(telemetry, "count", lambda name, amount=1, **labels: counted.append((name, amount)))
    assert await pass_over(billing) == 2
    assert sum(amount for name, amount in counted if name == "tollway_drift_total") >= 3
    states = {account_id: (await billing.state(account_id)).entitlement for account_id, _ in mine}
    assert (states[ended[0]].tier, states[unpaid[0]].status) == ("free", "past_due")
    assert await pass_over(billing) == 0


async def test_a_subscription_that_nobody_told_us_of_is_found(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    billing.payments.pay(await billing.check_out(account_id))
    assert await pass_over(billing) == 1
    assert (await billing.state(account_id)).entitlement.tier == "pro"


async def test_a_customer_that_is_not_ours_is_left_alone(billing: Billing) -> None:
    billing.payments.subscribe("cus_foreign", "price_x", "x")
    assert await pass_over(billing) == 0


async def test_an_account_that_is_about_to_be_read_is_no_drift(billing: Billing) -> None:
    _, subscription_id = await subscriber(billing, "ada")
    changed = billing.payments.change(subscription_id, status="past_due")
    await billing.hear_of(changed.customer_id)
    assert await pass_over(billing) == 0


async def test_a_pass_that_was_stopped_goes_on_where_it_was(billing: Billing, pages_of_two: None) -> None:
    for name in ("ada", "bob", "cyd"):
        await subscriber(billing, name)
    assert await sweep.sweep_page(billing.context) == 0
    ((cursor,),) = await billing.rows("SELECT cursor FROM sweep")
    assert cursor.startswith("sub_")
    billing.payments.down = True
    async with billing.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE sweep SET next_time = now()")
    with pytest.raises(StripeUnavailable):
        await sweep.sweep_page(billing.context)
    assert await billing.rows("SELECT cursor, next_time > now() FROM sweep") == [(cursor, True)]
    billing.payments.down = False
    assert await pass_over(billing) == 0


async def test_of_replicas_one_takes_a_page_and_then_none_before_the_pause_is_over(billing: Billing) -> None:
    await subscriber(billing, "ada")
    taken = await asyncio.gather(*(sweep.sweep_page(billing.context) for _ in range(4)))
    assert sorted(taken, key=str) == [0, None, None, None]
    assert await sweep.sweep_page(billing.context) is None


async def test_a_place_that_stripe_does_not_know_any_more_begins_anew(billing: Billing, pages_of_two: None) -> None:
    for name in ("ada", "bob", "cyd"):
        await subscriber(billing, name)
    await sweep.sweep_page(billing.context)
    listed = billing.payments.list_subscriptions

    async def gone(after: str, limit: int) -> tuple[list[Subscription], str]:
        raise ValueError("No such subscription")

    billing.payments.list_subscriptions = gone  # type: ignore[method-assign]
    async with billing.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE sweep SET next_time = now()")
    with pytest.raises(sweep.PlaceLost):
        await sweep.sweep_page(billing.context)
    assert await billing.rows("SELECT cursor FROM sweep") == [("",)]
    billing.payments.list_subscriptions = listed  # type: ignore[method-assign]
    assert await pass_over(billing) == 0


async def test_an_account_that_cannot_be_repaired_keeps_no_other_from_it(billing: Billing) -> None:
    broken, mended = [await subscriber(billing, name) for name in ("ada", "bob")]
    for _, subscription_id in (broken, mended):
        billing.payments.change(subscription_id, status="past_due")
    read = billing.payments.list_invoices
    bad = billing.payments.subscriptions[broken[1]].customer_id

    async def failing(customer_id: str) -> list[Invoice]:
        if customer_id == bad:
            raise ValueError("odd data")
        return await read(customer_id)

    billing.payments.list_invoices = failing  # type: ignore[method-assign]
    assert await pass_over(billing) == 2
    assert (await billing.state(mended[0])).entitlement.status == "past_due"
    assert (await billing.state(broken[0])).entitlement.status == "active"
