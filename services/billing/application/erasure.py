"""Erasing the personal data of an account: here, at Stripe, and, by an event, wherever else it lies.

Ids, amounts and times of invoices stay, as the law wants. What cannot be recalled goes by itself: published events when
the outbox and the stream forget them, stored answers after a day.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from services.billing.application import audit, customer_push
from services.billing.application.context import Context
from services.billing.application.keys import end_all
from services.billing.application.operators import settle
from services.billing.domain.principal import Actor
from services.billing.errors import RefundUnderWay, SubscriptionRunning
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.kit.failpoint import failpoint

NAME = "Erased"  # of an account that had another one


async def erase_account(account_id: str, actor: Actor, context: Context) -> tuple[datetime, bool]:
    """When it was erased, now or before; and whether Stripe has deleted the customer already."""
    async with context.unit_of_work() as uow:
        account = await uow.accounts.get(account_id)
    erased_at = account.erase_time
    if erased_at is None:
        await _refuse_what_runs(account, context)
        erased_at = await _erase(account_id, actor, context)
        failpoint("billing.erase.committed")
    return erased_at, await customer_push.push_now(account_id, context)


async def _refuse_what_runs(account: Account, context: Context) -> None:
    """Asks Stripe, not the copy: deleting a customer ends what it subscribes to, unasked."""
    if account.stripe_customer_id is None:
        return
    async with context.unit_of_work() as uow:
        standing = await uow.checkouts.unclosed(account.id)
    if standing is not None and standing.session_id is not None:
        # First, so that what it was paid for is among what is looked at then.
        await context.payments.expire_session(standing.session_id)
    found = await context.payments.subscriber(account.stripe_customer_id)
    if found is not None and any(s.status not in {"canceled", "incomplete_expired"} for s in found.subscriptions):
        raise SubscriptionRunning("A subscription still runs: end it first, at once or with its period.")


async def _erase(account_id: str, actor: Actor, context: Context) -> datetime:
    now = context.business.now()
    async with context.unit_of_work() as uow:
        before = await uow.accounts.get(account_id, lock=True)
        if before.erase_time is not None:
            return before.erase_time
        refund = await uow.refunds.of(account_id)
        if refund is not None and not refund.state.final:
            raise RefundUnderWay("A refund is under way: erase when it is done.")
        standing = await uow.checkouts.unclosed(account_id)
        if standing is not None:
            await uow.checkouts.close(standing.id)
        await end_all(account_id, now, uow)
        await _erase_rows(before, now, uow)
        await settle(account_id, uow, context, actor)  # an override ends with it
        await audit.record(uow, context, account_id, actor, "account.erased", account_id)
        uow.outbox.add(context.announcer.account_erased(account_id, now), account_id)
        await uow.pushes.want(account_id)
        failpoint("billing.erase.before_commit")
        await uow.commit()
    return now


async def _erase_rows(before: Account, now: datetime, uow: BillingUnitOfWork) -> None:
    after = replace(
        before,
        slug=f"erased-{before.id.removeprefix('acct_')}",
        name=NAME,
        email="",
        contact_verify_time=None,
        erase_time=now,
    )
    await uow.erasure.erase(after, {before.email.lower()} - {""})
