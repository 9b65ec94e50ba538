"""The refund by policy, and money that was given back or disputed at Stripe.

CONTRACT "Refund": "Order: cancel, the new state reaches quota, read the lifetime total, refund the base line with its
tax." The row goes ahead of each step, so a process killed anywhere leaves one that any other goes on with.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from services.billing.application import audit, metering
from services.billing.application.accounts import addressed
from services.billing.application.context import Context
from services.billing.domain.principal import STRIPE, Actor, ActorKind
from services.billing.domain.refund import Refund, Seen, State, refusal, window_end
from services.billing.domain.subscription import current
from services.billing.errors import RefundRefused, StripeUnavailable
from services.billing.ports import BaseFee, RefundRejected, StripeRetryable
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.kit import telemetry
from services.kit.errors import TollwayError, Unavailable
from services.kit.failpoint import failpoint
from services.kit.ids import new_id

HOLD = timedelta(seconds=30)
WAIT = timedelta(seconds=15)  # how long a caller waits for the whole of it; then it goes on by itself
POLL_S = 0.1  # between looks at another service, which says nothing when it is ready
WORK_S = 1.0

log = structlog.get_logger(__name__)

_WORDS = {
    "REFUND_NOT_OFFERED": "This plan has no refund policy.",
    "NOTHING_TO_REFUND": "There is no paid subscription that could be refunded.",
    "REFUND_WINDOW_OVER": "The time in which a refund is given is over.",
    "REFUND_USAGE_EXCEEDED": "Too much was used for a refund.",
    "REFUNDED_ALREADY": "This account had its refund.",
}
_DUE = "The base fee will be refunded, and the subscription ends at once."


@dataclass(frozen=True)
class Offer:
    """What a refund would be. `reason` empty: it is due."""

    reason: str
    message: str
    fee: BaseFee | None
    subscription_id: str
    invoice_id: str
    window_end: datetime | None
    used: int
    fewer_than: int
    refund: Refund | None


async def preview_refund(account_id: str, context: Context) -> Offer:
    """What is due now. Changes nothing."""
    policy = context.catalog.policies.refund
    async with context.unit_of_work() as uow:
        account = await uow.accounts.get(account_id)
        earlier = await uow.refunds.of(account_id)
        running = current([s for s in await uow.snapshots.subscriptions(account_id) if s.live])
        began = await uow.refunds.began(account_id) if running is not None else None
        base = await uow.refunds.base_invoice(running.id) if running is not None else None
        base_prices = await uow.prices.of_lookup_keys(context.catalog.base_lookup_keys)
    used = None
    reason = "REFUNDED_ALREADY" if earlier else refusal(policy, began, None, context.business.now())
    fee = None
    if not reason and base is not None and policy is not None:
        used = (await context.usage.counted(account.id, policy.limit)).used
        reason = refusal(policy, began, used, context.business.now())
        fee = await context.payments.base_fee(base, base_prices)
    if not reason and fee is None:
        reason = "NOTHING_TO_REFUND"
    return Offer(
        reason=reason,
        message=_WORDS.get(reason, _DUE),
        fee=fee,
        subscription_id=running.id if running is not None else "",
        invoice_id=base or "",
        window_end=window_end(policy, began) if policy and began else None,
        used=used or 0,
        fewer_than=policy.fewer_than if policy else 0,
        refund=earlier,
    )


async def create_refund(account_id: str, actor: Actor, context: Context) -> Refund:
    """Starts the account's refund, or goes on with it, and returns it as it stands when it is over or WAIT is."""
    async with context.unit_of_work() as uow:
        await uow.accounts.get(account_id)
        found = await uow.refunds.of(account_id)
    if found is None:
        await _begin(account_id, actor, context)
    return await _finish(account_id, context)


async def _begin(account_id: str, actor: Actor, context: Context) -> None:
    offer = await preview_refund(account_id, context)
    if offer.reason == "REFUNDED_ALREADY":
        return  # another call was faster
    if offer.reason or offer.fee is None:
        raise RefundRefused(offer.message, reason=offer.reason)
    async with context.unit_of_work() as uow:
        account = await uow.accounts.get(account_id, lock=True)
        new = Refund(
            id=new_id("rfd"),
            account_id=account_id,
            customer_id=account.stripe_customer_id or "",
            subscription_id=offer.subscription_id,
            invoice_id=offer.invoice_id,
            payment_intent=offer.fee.payment_intent,
            amount=offer.fee.amount,
            currency=offer.fee.currency,
            state=State.CANCELING,
            used=None,
            attempt=1,
            stripe_refund_id="",
            actor_kind=actor.kind,
            actor_id=actor.id,
            create_time=context.business.now(),
            finish_time=None,
        )
        if await uow.refunds.add(new, timedelta(0)):
            await audit.record(uow, context, account_id, actor, "refund.requested", new.id, amount=new.amount)
        await uow.commit()
    failpoint("billing.refund.requested")


async def _finish(account_id: str, context: Context) -> Refund:
    """Works on the refund, or watches who does, until it is over or the caller has waited long enough."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT.total_seconds()
    while True:
        async with context.unit_of_work() as uow:
            mine = await uow.refunds.claim(HOLD, 1, account_id)
            found = await uow.refunds.of(account_id)
            await uow.commit()
        if found is None:
            raise RefundRefused(_WORDS["NOTHING_TO_REFUND"], reason="NOTHING_TO_REFUND")
        if mine:
            found = await work_on(mine[0], context)
        if found.state.final or loop.time() >= deadline:
            return found
        await asyncio.sleep(POLL_S)


async def run(context: Context) -> None:
    """Goes on with refunds that nobody works on, until cancelled."""
    while True:
        try:
            async with context.unit_of_work() as uow:
                due = await uow.refunds.claim(HOLD, 10)
                await uow.commit()
            done = await asyncio.gather(*(work_on(each, context) for each in due), return_exceptions=True)
            for error in (each for each in done if isinstance(each, Exception)):
                log.warning("refund.stuck", error=repr(error))
        except Exception as error:
            log.warning("refunds.delayed", error=type(error).__name__)
        await asyncio.sleep(WORK_S)  # the work comes from rows that a crash or an outage left behind


async def work_on(claimed: Refund, context: Context) -> Refund:
    """As many steps as can be done now, then lets go of the row."""
    now = claimed
    try:
        while not now.state.final:
            after = await _step(now, context)
            if after is None:
                break
            now = after
    except (TollwayError, StripeRetryable) as error:
        log.warning("refund.delayed", refund=now.id, state=now.state, error=type(error).__name__)
        telemetry.count("tollway_refund_delays_total", 1, state=now.state)
        if not isinstance(error, StripeUnavailable | StripeRetryable | Unavailable):
            raise
    finally:
        async with context.unit_of_work() as uow:
            await uow.refunds.release(now.id, timedelta(0))
            await uow.commit()
    return now


async def _step(now: Refund, context: Context) -> Refund | None:
    """The refund after its next step; None when it has to wait for others."""
    if now.state is State.CANCELING:
        await metering.send_all(now.account_id, context)  # use is not refunded: its last invoice is to have it all
        await context.payments.cancel_subscription(now.subscription_id, f"{now.id}:end")
        failpoint("billing.refund.canceled")
        async with context.unit_of_work() as uow:
            after = replace(now, state=State.COUNTING)
            moved = await uow.refunds.move(now, after)
            await uow.marks.want(now.account_id)
            await uow.commit()
        context.marked()
        return after if moved else None
    if now.state is State.COUNTING:
        return await _count(now, context)
    return await _give_back(now, context)


async def _count(now: Refund, context: Context) -> Refund | None:
    """Reads the lifetime total once quota knows that the subscription has ended: what is granted later cannot come
    from it."""
    policy = context.catalog.policies.refund
    async with context.unit_of_work() as uow:
        mine = await uow.snapshots.subscriptions(now.account_id)
        version = (await uow.entitlements.get(now.account_id)).version
    if any(s.id == now.subscription_id and s.live for s in mine):
        return None
    counted = await context.usage.counted(now.account_id, policy.limit if policy else "")
    if counted.version < version:
        return None
    used = counted.used or 0
    # A catalog that lost its policy since the refund was promised does not take the promise back.
    too_much = policy is not None and used >= policy.fewer_than
    finished = context.business.now() if too_much else None
    after = replace(now, state=State.REFUSED if too_much else State.REFUNDING, used=used, finish_time=finished)
    async with context.unit_of_work() as uow:
        moved = await uow.refunds.move(now, after)
        if moved and too_much:
            await audit.record(uow, context, now.account_id, _actor(now), "refund.refused", now.id, used=used)
        await uow.commit()
    failpoint("billing.refund.counted")
    return after if moved else None


async def _give_back(now: Refund, context: Context) -> Refund | None:
    key = f"{now.id}:refund:{now.attempt}"
    try:
        seen = await context.payments.refund(now.payment_intent, now.amount, now.id, key)
    except StripeRetryable:
        async with context.unit_of_work() as uow:
            await uow.refunds.move(now, replace(now, attempt=now.attempt + 1))
            await uow.commit()
        raise
    except RefundRejected as error:
        return await _rejected(now, str(error), context)
    failpoint("billing.refund.made")
    after = replace(now, state=State.REFUNDED, stripe_refund_id=seen.id, finish_time=context.business.now())
    async with context.unit_of_work() as uow:
        moved = await uow.refunds.move(now, after)
        if moved:
            account = await uow.accounts.get(now.account_id)
            await note_reversal(account, seen, uow, context, _actor(now))
        await uow.commit()
    return after if moved else None


async def _rejected(now: Refund, code: str, context: Context) -> Refund | None:
    """Stripe never will: an operator has to look, because the subscription has ended and money was promised."""
    after = replace(now, state=State.REFUSED, finish_time=context.business.now())
    async with context.unit_of_work() as uow:
        moved = await uow.refunds.move(now, after)
        if moved:
            await audit.record(uow, context, now.account_id, _actor(now), "refund.rejected", now.id, code=code)
        await uow.commit()
    _alert("refund_rejected", now.account_id)
    return after if moved else None


async def read_reversals(account: Account, charge_ids: list[str], context: Context) -> list[Seen]:
    """What Stripe says of these charges now; other customers' are left out."""
    found = [seen for charge_id in charge_ids for seen in await context.payments.reversals(charge_id)]
    return [seen for seen in found if seen.customer_id == account.stripe_customer_id]


async def note_reversal(
    account: Account, seen: Seen, uow: BillingUnitOfWork, context: Context, actor: Actor = STRIPE
) -> None:
    """Saves what was given back or disputed, and tells it: a refund once, a dispute once per status. What the policy
    did not give is an operator's to look at."""
    told = await uow.reversals.save(account.id, seen)
    if told == seen.status or (seen.kind == "refund" and (told or not seen.gave_back)):
        return
    await uow.reversals.announced(seen)
    details: dict[str, str | int] = {"amount": seen.amount, "currency": seen.currency, "status": seen.status}
    if seen.kind == "refund":
        number = await uow.snapshots.invoice_number(seen.invoice_id)
        whom = await addressed(account, uow)
        uow.outbox.add(context.announcer.refunded(whom, seen, number), account.id)
        await audit.record(uow, context, account.id, actor, "refund.made", seen.id, **details)
    else:
        uow.outbox.add(context.announcer.disputed(account, seen), account.id)
        await audit.record(uow, context, account.id, actor, "dispute.seen", seen.id, reason=seen.reason, **details)
    if not seen.policy_refund_id:
        _alert("refund_at_stripe" if seen.kind == "refund" else "dispute", account.id)


def _alert(name: str, account_id: str) -> None:
    telemetry.count("tollway_billing_alerts_total", 1, alert=name)
    log.warning("billing.alert", alert=name, account=account_id)


def _actor(refund: Refund) -> Actor:
    return Actor(ActorKind(refund.actor_kind), refund.actor_id)
