"""The sync: reads an account from Stripe and makes local state equal to it (DESIGN §4).

The claim is taken and `wanted` noted before the read, and the commit holds only while the claim is ours. So ten
events become one read, and duplicates, gaps, reordering and slow reads converge on what Stripe says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta

import structlog

from services.billing.application import audit, notices, refunds
from services.billing.application.context import Context
from services.billing.catalog.model import KEEP
from services.billing.domain.entitlement import Entitlement, resolve
from services.billing.domain.principal import STRIPE, Actor
from services.billing.domain.subscription import Invoice, current
from services.billing.ports import FromStripe, Upcoming
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.billing.storage.webhooks import APPLIED, DEAD, Claimed, PendingInvoice
from services.kit import telemetry
from services.kit.errors import NotFound
from services.kit.failpoint import failpoint
from services.kit.ids import new_id

HOLD = timedelta(seconds=6)  # what a killed worker held is free after it; a living one holds on
PARALLEL = 8
UNOWNED_S = 2.0
POLL_S = 1.0  # for marks that another process, or one that died, left behind
MAX_ATTEMPTS = 300  # with the longest delay that is a day
_LONGEST_DELAY = timedelta(minutes=5)

log = structlog.get_logger(__name__)


class Worker:
    """Works on marks until cancelled. Any number may run; a claim keeps two off one account."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] | None = None  # None: it does not run

    def wake(self) -> None:
        self._wake.set()

    def new_claim(self) -> str | None:
        """A claim for whoever marks an account now; None when as many are worked on as may be."""
        has_room = self._running is not None and len(self._running) < PARALLEL
        return new_id("claim") if has_room else None

    def begin(self, claimed: Claimed, claim: str) -> None:
        """Works on what was claimed. When it cannot, the hold runs out and another worker does."""
        if self._running is None:
            return
        task = asyncio.create_task(self._sync(claimed, claim))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # Marks that came meanwhile wait for their account to be free again.
        task.add_done_callback(lambda _: self._wake.set())

    async def run(self) -> None:
        running = self._running = set()
        try:
            while True:
                self._wake.clear()
                found = 0
                try:
                    claim = new_id("claim")
                    async with self._context.unit_of_work() as uow:
                        claims = await uow.marks.claim(claim, HOLD, max(0, PARALLEL - len(running)))
                        await uow.commit()
                    found = len(claims)
                    for claimed in claims:
                        self.begin(claimed, claim)
                except Exception as error:
                    log.warning("sync.delayed", error=type(error).__name__)
                if not found or len(running) >= PARALLEL:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), POLL_S)
        finally:
            self._running = None
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def run_unowned(self) -> None:
        """Finds the owners of events whose customer nobody has noted, until cancelled."""
        while True:
            try:
                await assign_unowned(self._context)
            except Exception as error:
                log.warning("events.unowned_delayed", error=type(error).__name__)
            else:
                self._wake.set()
            await asyncio.sleep(UNOWNED_S)  # rare: a foreign customer, or a crash before our own was noted

    async def _sync(self, claimed: Claimed, claim: str) -> None:
        holding = asyncio.create_task(self._hold(claimed, claim))
        try:
            await sync(claimed, claim, self._context)
        except Exception as error:
            telemetry.count("tollway_sync_failures_total")
            log.warning("sync.failed", account=claimed.account_id, attempts=claimed.attempts, error=repr(error))
            with contextlib.suppress(Exception):  # else the hold ends and another try begins
                await _failed(claimed, claim, error, self._context)
        finally:
            holding.cancel()

    async def _hold(self, claimed: Claimed, claim: str) -> None:
        """However long Stripe takes, nobody else begins the same read."""
        while True:
            await asyncio.sleep(HOLD.total_seconds() / 3)
            with contextlib.suppress(Exception):  # when the hold is lost, `sync` keeps nothing
                async with self._context.unit_of_work() as uow:
                    await uow.marks.hold(claimed.account_id, claim, HOLD)
                    await uow.commit()


async def sync(claimed: Claimed, claim: str, context: Context, also: Sequence[str] = ()) -> None:
    """One read of one account, applied as of the noted mark. `also`: invoices to read that no event names."""
    async with context.unit_of_work() as uow:
        account = await uow.accounts.get(claimed.account_id)
        pending = await uow.events.pending_invoices(claimed.account_id, claimed.wanted)
        charges = await uow.events.pending_charges(claimed.account_id, claimed.wanted)
        prior = await uow.entitlements.get(claimed.account_id)
        told = await uow.snapshots.told(claimed.account_id)
    read: FromStripe | None
    reversals = await refunds.read_reversals(account, charges, context)
    if account.erase_time is not None:
        read = None  # its customer is gone; what was read of it last stands
    elif account.stripe_customer_id is None:
        read = FromStripe([], [], "")
    else:
        named = [*(each.invoice_id for each in pending), *also]
        read = await context.payments.read(account.stripe_customer_id, named, want_last_paid=False)
        if _nothing_to_keep(read, prior, context):
            read = await context.payments.read(account.stripe_customer_id, named, want_last_paid=True)
    upcoming = await notices.read_upcoming(read.subscriptions, told, context) if read is not None else {}
    failpoint("billing.sync.read")
    async with context.unit_of_work() as uow:
        if not await uow.marks.finish(claimed.account_id, claim, claimed.wanted):
            log.info("sync.superseded", account=claimed.account_id)
            return
        if read is not None:
            await _apply(account, read, upcoming, {each.invoice_id: each for each in pending}, uow, context)
        for seen in reversals:
            await refunds.note_reversal(account, seen, uow, context)
        await uow.events.finish(claimed.account_id, claimed.wanted, APPLIED)
        failpoint("billing.sync.before_commit")
        await uow.commit()
    failpoint("billing.sync.after_commit")


def _nothing_to_keep(read: FromStripe, prior: Entitlement, context: Context) -> bool:
    """A subscription is first seen in a status that keeps a tier, so the last paid price has to tell which."""
    now = current(read.subscriptions)
    if now is None or context.catalog.lifecycle[now.status] != KEEP:
        return False
    return not (now.id == prior.subscription_id and prior.granted_price_id)


async def _apply(
    account: Account,
    read: FromStripe,
    upcoming: dict[str, Upcoming | None],
    pending: dict[str, PendingInvoice],
    uow: BillingUnitOfWork,
    context: Context,
) -> None:
    prior = await uow.entitlements.get(account.id, lock=True)
    for subscription in read.subscriptions:
        sold = context.catalog.tier_of_lookup_key(subscription.lookup_key) if subscription.lookup_key else None
        if sold is not None:
            await uow.prices.remember(subscription.price_id, subscription.lookup_key, sold, on_sale=False)
    prices = {s.price_id for s in read.subscriptions} | {prior.granted_price_id, read.last_paid_price_id}
    override = await uow.overrides.tier(account.id, context.business.now())
    tiers = await uow.prices.tiers(prices)
    resolution = resolve(context.catalog, prior, read.subscriptions, tiers, read.last_paid_price_id, override)
    for alert in resolution.alerts:
        telemetry.count("tollway_billing_alerts_total", 1, alert=alert)
        log.warning("billing.alert", alert=alert, account=account.id)
    tier = resolution.entitlement.tier
    await notices.announce(account, read.subscriptions, upcoming, tiers, tier, uow, context)
    for invoice in read.invoices:
        await _apply_invoice(account, invoice, pending.get(invoice.id), uow, context)
    await save_entitlement(prior, resolution.entitlement, uow, context)


async def save_entitlement(
    prior: Entitlement, state: Entitlement, uow: BillingUnitOfWork, context: Context, actor: Actor = STRIPE
) -> None:
    """Saves and announces the state if it is another one. The events are in the same transaction (DESIGN §11.7)."""
    if state.version == prior.version:
        return
    await uow.entitlements.save(state)
    changed = await uow.entitlements.now()
    uow.outbox.add(context.announcer.entitlements_changed(state, changed), state.account_id)
    if state.tier != prior.tier:
        uow.outbox.add(context.announcer.tier_changed(state, prior.tier, changed), state.account_id)
        moved = {"previous": prior.tier, "tier": state.tier, "status": state.status}
        await audit.record(uow, context, state.account_id, actor, "tier.changed", state.account_id, **moved)


async def _apply_invoice(
    account: Account, invoice: Invoice, named: PendingInvoice | None, uow: BillingUnitOfWork, context: Context
) -> None:
    """Saves the invoice and announces what is new: that it was paid, once, and each failed attempt, once."""
    told = await uow.snapshots.save_invoice(account.id, invoice)
    paid, attempts, first_failure = told.paid, told.attempts, told.first_failure_time
    now = context.business.now()
    since = account.import_time
    if since is not None and told.is_new and invoice.create_time <= since:
        # What happened before the account was ours was told by whoever had it then.
        paid = invoice.status == "paid" and (invoice.paid_time is None or invoice.paid_time <= since)
        if invoice.failed:
            attempts, first_failure = invoice.attempt_count, invoice.create_time
    if invoice.status == "paid" and not paid:
        paid = True
        uow.outbox.add(context.announcer.invoice_paid(account, invoice, now), account.id)
    if invoice.failed and invoice.attempt_count > attempts:
        attempts = invoice.attempt_count
        first_failure = first_failure or (named.failure_time if named else None) or now
        event = context.announcer.invoice_payment_failed(
            account, invoice, first_failure, action_required=bool(named and named.action_required)
        )
        uow.outbox.add(event, account.id)
    if (paid, attempts) != (told.paid, told.attempts):
        await uow.snapshots.announced(invoice.id, paid=paid, attempts=attempts, first_failure_time=first_failure)


async def _failed(claimed: Claimed, claim: str, error: Exception, context: Context) -> None:
    delay = min(timedelta(seconds=0.5 * 2 ** min(claimed.attempts, 12)), _LONGEST_DELAY)
    async with context.unit_of_work() as uow:
        if claimed.attempts + 1 >= MAX_ATTEMPTS:
            # Dead letters: the next event of this account, or a replay, takes it up again.
            await uow.marks.finish(claimed.account_id, claim, claimed.wanted)
            await uow.events.finish(claimed.account_id, claimed.wanted, DEAD)
            log.error("sync.dead", account=claimed.account_id, error=type(error).__name__)
        else:
            await uow.marks.fail(claimed.account_id, claim, delay, type(error).__name__)
        await uow.commit()


async def assign_unowned(context: Context) -> None:
    """Events of customers that no account has noted: asks Stripe whose they are, and lets foreign ones go."""
    async with context.unit_of_work() as uow:
        charges = await uow.events.charges_without_customer(PARALLEL)
    for charge_id in charges:
        named = await context.payments.customer_of_charge(charge_id)
        async with context.unit_of_work() as uow:
            await uow.events.name_customer(charge_id, named)
            await uow.commit()
    async with context.unit_of_work() as uow:
        customers = await uow.events.unowned_customers(PARALLEL)
    for customer_id in customers:
        account_id = await context.payments.account_of_customer(customer_id)
        async with context.unit_of_work() as uow:
            owner = await uow.accounts.of_customer(customer_id)
            if owner is None and account_id:
                with contextlib.suppress(NotFound):  # an account of another installation at the same Stripe
                    account = await uow.accounts.get(account_id)
                    if await uow.accounts.set_customer(account.id, customer_id) == customer_id:
                        owner = account
            if owner is None:
                await uow.events.disown(customer_id)
            else:
                await uow.events.assign(customer_id, owner.id, await uow.marks.want(owner.id))
            await uow.commit()
