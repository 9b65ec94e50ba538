"""Makes customers at Stripe as their accounts are here: whose they are, their address, or that they are gone.

A change marks the account in its own transaction; the mark is worked off at once, and again until Stripe has taken it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from services.billing.application.context import Context
from services.billing.storage.customers import Push
from services.kit import telemetry
from services.kit.errors import Unavailable
from services.kit.failpoint import failpoint

HOLD = timedelta(seconds=60)  # longer than two calls with their retries take
WORK_S = 1.0
PARALLEL = 4
_AFTER_TROUBLE = timedelta(seconds=10)
_AFTER_REFUSAL = timedelta(minutes=10)

log = structlog.get_logger(__name__)


async def push_now(account_id: str, context: Context) -> bool:
    """What is wanted for this account. False: Stripe does not answer right now; it is done later."""
    async with context.unit_of_work() as uow:
        claimed = await uow.pushes.claim(HOLD, 1, account_id)
        await uow.commit()
    for each in claimed:
        await _push(each, context)
    async with context.unit_of_work() as uow:
        return not await uow.pushes.is_wanted(account_id)


async def push_due(context: Context) -> int:
    """What nobody works on, a few at a time. Returns how many Stripe took."""
    async with context.unit_of_work() as uow:
        claimed = await uow.pushes.claim(HOLD, PARALLEL)
        await uow.commit()
    return sum(await asyncio.gather(*(_push(each, context) for each in claimed)))


async def run(context: Context) -> None:
    """Works marks off until cancelled."""
    while True:
        done = 0
        try:
            done = await push_due(context)
        except Exception as error:
            log.warning("customers.delayed", error=type(error).__name__)
        if not done:
            await asyncio.sleep(WORK_S)  # marks come from calls, an import, or a crash


async def _push(push: Push, context: Context) -> bool:
    async with context.unit_of_work() as uow:
        account = await uow.accounts.get(push.account_id)
    delay = timedelta(0)
    try:
        if account.stripe_customer_id is None:
            pass  # Checkout will make it as the account is then
        elif account.erase_time is not None:
            await context.payments.delete_customer(account.stripe_customer_id)
        else:
            await context.payments.update_customer(account.stripe_customer_id, account.id, account.email)
    except Unavailable:
        delay = _AFTER_TROUBLE
    except Exception as error:
        delay = _AFTER_REFUSAL  # the customer was deleted at Stripe, or it refuses the address
        telemetry.count("tollway_billing_alerts_total", 1, alert="customer_refused")
        log.error("billing.alert", alert="customer_refused", account=account.id, error=type(error).__name__)
    failpoint("billing.customer.pushed")
    async with context.unit_of_work() as uow:
        if delay:
            await uow.pushes.put_off(push, delay)
        else:
            await uow.pushes.done(push)
        await uow.commit()
    return not delay
