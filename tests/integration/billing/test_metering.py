"""Use that is sold by the unit: quota's totals on their way to Stripe's meter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.billing.application import metering
from services.kit.clock import WallClock
from services.kit.errors import NotFound
from services.kit.inbox import Received
from tests.integration.billing.conftest import Billing, running_billing
from tollway.quota.v1 import events_pb2


@pytest.fixture
async def shop(billing_database: str) -> AsyncIterator[Billing]:
    async with running_billing(billing_database, Path("catalogs/manashiki.yaml")) as started:
        yield started


async def subscriber(shop: Billing) -> str:
    account_id = (await shop.sign_up()).account.id
    shop.payments.pay(await shop.check_out(account_id, "paid"), "manashiki_developer_month")
    return account_id


def total(account_id: str, used: int, number: int, *, month: int = 0, at: int | None = None) -> Received:
    now = WallClock().now().replace(microsecond=0)
    start = now - timedelta(days=10) + timedelta(days=30 * month)
    message = events_pb2.UsageRecorded(account_id=account_id, meter="live_downloads", used=used)
    # The same period for every event of a test, whatever second it is made in.
    day = datetime(start.year, start.month, start.day, tzinfo=UTC)
    message.period_start.FromDatetime(day)
    message.period_end.FromDatetime(day + timedelta(days=30))
    message.record_time.FromDatetime(day + timedelta(seconds=number if at is None else at))
    kind = message.DESCRIPTOR.full_name
    return Received(f"evt_{number}", kind, account_id, now, message)


def units(shop: Billing) -> list[int]:
    return [report.units for report in shop.payments.reports.values()]


async def test_totals_reach_the_meter_as_differences_once_in_whatever_order_they_come(shop: Billing) -> None:
    account_id = await subscriber(shop)
    events = [total(account_id, 40, 1), total(account_id, 100, 2), total(account_id, 70, 3, at=1)]
    await metering.learn_usage(events[0], shop.context)
    assert await metering.send_due(shop.context) == 1
    for event in (events[1], events[0], events[2], events[1]):
        await metering.learn_usage(event, shop.context)
    while await metering.send_due(shop.context):
        pass
    assert units(shop) == [40, 60]
    customers = {report.customer_id for report in shop.payments.reports.values()}
    assert customers == {f"cus_{account_id}"}


async def test_many_workers_send_one_report_at_a_time(shop: Billing) -> None:
    account_id = await subscriber(shop)
    for number in (1, 2, 3):
        await metering.learn_usage(total(account_id, number * 10, number), shop.context)
        await asyncio.gather(*(metering.send_due(shop.context) for _ in range(5)))
    assert sum(units(shop)) == 30
    assert await shop.rows("SELECT used, sent, sending FROM usage_total") == [(30, 30, None)]


async def test_a_lost_answer_is_followed_by_the_same_report(shop: Billing) -> None:
    account_id = await subscriber(shop)
    shop.payments.lose_answers = 1
    await metering.learn_usage(total(account_id, 40, 1), shop.context)
    assert await metering.send_due(shop.context) == 0
    await metering.learn_usage(total(account_id, 90, 2), shop.context)
    async with shop.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE usage_total SET hold_until = now()")  # as when the pause is over
    while await metering.send_due(shop.context):
        pass
    assert units(shop) == [40, 50]


async def test_a_report_that_stripe_refuses_holds_up_no_other_account(shop: Billing) -> None:
    account_id = await subscriber(shop)
    shop.payments.rejecting_usage = True
    await metering.learn_usage(total(account_id, 40, 1), shop.context)
    assert await metering.send_due(shop.context) == 0
    assert await shop.rows("SELECT sent, sending FROM usage_total") == [(0, 40)]
    assert await metering.send_due(shop.context) == 0, "it waits"


async def test_use_of_a_period_whose_invoice_is_final_is_stamped_now_and_listed_as_late(shop: Billing) -> None:
    account_id = await subscriber(shop)
    await metering.learn_usage(total(account_id, 40, 1, month=-2), shop.context)
    await metering.learn_usage(total(account_id, 5, 2), shop.context)
    while await metering.send_due(shop.context):
        pass
    (late,) = await metering.list_totals("", only_late=True, context=shop.context)
    assert (late.account_id, late.used, late.sent) == (account_id, 40, 40)
    stamps = [report.stamp for report in shop.payments.reports.values()]
    assert all(WallClock().now() - stamp < timedelta(minutes=1) for stamp in stamps)
    assert len(await metering.list_totals(account_id, only_late=False, context=shop.context)) == 2
    assert await metering.list_late(account_id, shop.context) == [late]
    with pytest.raises(NotFound):
        await metering.list_late("acct_nobody", shop.context)


async def test_a_total_of_an_unknown_account_is_not_taken(shop: Billing) -> None:
    with pytest.raises(NotFound):
        await metering.learn_usage(total("acct_nobody", 40, 1), shop.context)
    assert await shop.rows("SELECT * FROM inbox") == []


async def test_checkout_sells_the_units_beside_the_plan(shop: Billing) -> None:
    await subscriber(shop)
    (row,) = await shop.rows("SELECT price_id, metered_price_ids FROM checkout")
    assert tuple(row) == ("price_manashiki_developer_month", "price_manashiki_developer_month_live_downloads")
