"""Metered overage (DESIGN §4): quota says totals, billing sends Stripe's meter the difference, the price does the rest.

All units are sent, the included ones too: the graduated price charges those beyond them.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta

import structlog

from services.billing.application.context import Context
from services.billing.domain.metering import INSTANT, UsageTotal, begin, delivered, report
from services.billing.ports import UsageRejected
from services.kit import telemetry
from services.kit.errors import InvalidArgument, Unavailable
from services.kit.failpoint import failpoint
from services.kit.inbox import Received
from tollway.quota.v1 import events_pb2

HOLD = timedelta(seconds=60)  # longer than a call with its retries takes
WORK_S = 1.0
PARALLEL = 8
MOST = 1000
_AFTER_TROUBLE = timedelta(seconds=5)
_AFTER_REJECTION = timedelta(minutes=5)

log = structlog.get_logger(__name__)


async def learn_usage(event: Received, context: Context) -> None:
    """Takes a total from quota, once per event; an older one changes nothing."""
    message = event.message
    if not isinstance(message, events_pb2.UsageRecorded):
        raise TypeError(f"not a UsageRecorded: {event.type}")
    if not message.HasField("period_start") or not message.HasField("period_end"):
        raise InvalidArgument("A billing period is expected.", field="period_end")
    total = UsageTotal(
        account_id=message.account_id,
        meter=message.meter,
        period_start=message.period_start.ToDatetime(UTC),
        period_end=message.period_end.ToDatetime(UTC),
        used=message.used,
        record_time=message.record_time.ToDatetime(UTC),
        final=message.final,
        sent=0,
        sending=None,
        sending_stamp=None,
        reports=0,
        late=False,
    )
    async with context.unit_of_work() as uow:
        if await uow.inbox.accept(event):
            await uow.accounts.get(total.account_id)
            await uow.totals.believe(total)
            await uow.commit()


async def run(context: Context) -> None:
    """Sends what is to be sent, until cancelled."""
    while True:
        sent = 0
        try:
            sent = await send_due(context)
        except Exception as error:
            log.warning("metering.delayed", error=type(error).__name__)
        if not sent:
            await asyncio.sleep(WORK_S)  # totals come every 10 s at most, to whichever replica


async def send_due(context: Context) -> int:
    """Sends one report for each account and meter that has one to send. Returns how many Stripe took."""
    async with context.unit_of_work() as uow:
        due = await uow.totals.due(PARALLEL)
    done = await asyncio.gather(*(_send(account_id, meter, context) for account_id, meter in due))
    return sum(done)


async def send_all(account_id: str, context: Context) -> None:
    """What quota has told of the account and Stripe has not heard, as far as it goes right now."""
    async with context.unit_of_work() as uow:
        meters = await uow.totals.unsent_meters(account_id)
    for meter in meters:
        # Stamped before now: a last invoice is for what was used until its instant, exclusive.
        while await _send(account_id, meter, context, INSTANT):
            pass


async def _send(account_id: str, meter: str, context: Context, ago: timedelta = timedelta(0)) -> bool:
    async with context.unit_of_work() as uow:
        claimed = await uow.totals.claim(account_id, meter, HOLD)
        if claimed is None:
            return False
        customer_id = (await uow.accounts.get(account_id)).stripe_customer_id or ""
        total = begin(claimed, context.business.now() - ago)
        await uow.totals.save_report(total)  # before it leaves: a repeat must be the same report
        await uow.commit()
    failpoint("billing.metering.begun")
    delay = timedelta(0)
    try:
        await context.payments.report_usage(report(total, customer_id), context.catalog)
    except Unavailable:
        delay = _AFTER_TROUBLE
    except UsageRejected as error:
        delay = _AFTER_REJECTION
        telemetry.count("tollway_billing_alerts_total", 1, alert="usage_rejected")
        log.error("billing.alert", alert="usage_rejected", account=account_id, meter=meter, code=str(error))
    failpoint("billing.metering.sent")
    async with context.unit_of_work() as uow:
        if not delay:
            if total.late:
                telemetry.count("tollway_late_usage_total", 1, meter=meter)
            await uow.totals.save_report(delivered(total))
        await uow.totals.release(total, delay)
        await uow.commit()
    return not delay


async def list_late(account_id: str, context: Context) -> list[UsageTotal]:
    """Periods of which some use came after their invoice. Raises AccountNotFound."""
    if account_id:
        async with context.unit_of_work() as uow:
            await uow.accounts.get(account_id)
    return await list_totals(account_id, only_late=True, context=context)


async def list_totals(account_id: str, *, only_late: bool, context: Context) -> list[UsageTotal]:
    """Newest period first, at most MOST; of every account when `account_id` is empty."""
    async with context.unit_of_work() as uow:
        return await uow.totals.of(account_id, only_late=only_late, limit=MOST)
