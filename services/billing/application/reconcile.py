"""Reconciliation (DESIGN §4): recent events and subscriptions at Stripe against ours; what was missed is repaired."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from services.billing.application.context import Context
from services.billing.application.sync import HOLD, sync
from services.billing.application.webhooks import HANDLED, store
from services.billing.domain.drift import Drift, drifts
from services.billing.storage.accounts import Account
from services.billing.storage.webhooks import StoredEvent
from services.kit import telemetry
from services.kit.errors import InvalidArgument
from services.kit.ids import new_id

SWEEP_S = 600.0
LOOK_BACK = timedelta(days=3)  # as long as Stripe itself goes on delivering
BATCH = 25
MOST = 1000

log = structlog.get_logger(__name__)


@dataclass
class Report:
    drifts: list[Drift] = field(default_factory=list)
    accounts: int = 0
    missed_events: int = 0
    busy: int = 0
    next_token: str = ""


async def reconcile(account_id: str, page_token: str, context: Context, *, dry_run: bool) -> Report:
    """One account, or the next BATCH of all of them. A dry run changes nothing and says what would be."""
    report = Report()
    async with context.unit_of_work() as uow:
        if account_id:
            accounts = [await uow.accounts.get(account_id)]
        else:
            accounts = await uow.accounts.with_customer(page_token, BATCH)
    if not account_id and not page_token:
        report.missed_events = await find_missed(context, dry_run=dry_run)
    for account in accounts:
        report.accounts += 1
        found, is_busy = await compare(account, context, dry_run=dry_run)
        report.drifts += found
        report.busy += is_busy
    if not account_id and len(accounts) == BATCH:
        report.next_token = accounts[-1].id
    return report


async def compare(account: Account, context: Context, *, dry_run: bool) -> tuple[list[Drift], bool]:
    if account.stripe_customer_id is None or account.erase_time is not None:
        return [], False
    listed = await context.payments.list_invoices(account.stripe_customer_id)
    read = await context.payments.read(account.stripe_customer_id, [], want_last_paid=False)
    async with context.unit_of_work() as uow:
        subscriptions = await uow.snapshots.subscriptions(account.id)
        invoices = await uow.snapshots.invoices(account.id)
    found = drifts(account.id, subscriptions, read.subscriptions) + drifts(account.id, invoices, listed)
    if not found:
        return [], False
    telemetry.count("tollway_drift_total", len(found))
    for each in found:
        log.warning("reconcile.drift", account=account.id, object=each.object_id, field=each.field)
    if dry_run:
        return found, False
    claim = new_id("claim")
    async with context.unit_of_work() as uow:
        claimed, is_ours = await uow.marks.want_claimed(account.id, claim, HOLD)
        await uow.commit()
    context.marked()
    wrong = {each.object_id for each in found}
    if is_ours:
        await sync(claimed, claim, context, also=[invoice.id for invoice in listed if invoice.id in wrong])
    return found, not is_ours


async def repair(account: Account, context: Context) -> int:
    """Reads the account whole and makes local state equal to it. How many fields differed."""
    found, _ = await compare(account, context, dry_run=False)
    return len(found)


async def find_missed(context: Context, *, dry_run: bool) -> int:
    """Stores the events of the last days that Stripe has and that never arrived. Returns how many."""
    payloads = await context.payments.events_since(context.business.now() - LOOK_BACK, sorted(HANDLED))
    by_id = {json.loads(payload)["id"]: payload for payload in payloads}
    async with context.unit_of_work() as uow:
        known = await uow.events.known(list(by_id))
    missed = [payload for event_id, payload in by_id.items() if event_id not in known]
    if not dry_run:
        for payload in missed:
            await store(payload, context)
    if missed:
        telemetry.count("tollway_missed_events_total", len(missed))
        log.warning("reconcile.missed_events", count=len(missed), dry_run=dry_run)
    return len(missed)


async def run(context: Context) -> None:
    """Looks for missed events from time to time, until cancelled. Any number of replicas may."""
    while True:
        await asyncio.sleep(SWEEP_S)  # a period, not a wait for something
        try:
            await find_missed(context, dry_run=False)
        except Exception as error:
            log.warning("reconcile.delayed", error=type(error).__name__)


async def list_events(status: str, account_id: str, page_size: int, context: Context) -> list[StoredEvent]:
    """Newest first."""
    if not 0 <= page_size <= MOST:
        raise InvalidArgument(f"0 to {MOST} is expected.", field="page_size")
    async with context.unit_of_work() as uow:
        return list(await uow.events.stored(status, account_id, page_size or 100))


async def get_event(event_id: str, context: Context) -> tuple[StoredEvent, bytes]:
    async with context.unit_of_work() as uow:
        return await uow.events.get(event_id)


async def replay(event_id: str, context: Context) -> None:
    """Has the event's account read again. An event that no account was found for is looked up again, too."""
    async with context.unit_of_work() as uow:
        event, _ = await uow.events.get(event_id)
        mark = await uow.marks.want(event.account_id) if event.account_id else None
        if event.type in HANDLED:
            await uow.events.reopen(event_id, mark)
        await uow.commit()
    context.marked()
