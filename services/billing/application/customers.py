"""The account's customer at Stripe: made on the first need, once, and kept for ever."""

from __future__ import annotations

from datetime import timedelta

from services.billing.application.context import Context
from services.billing.errors import StripeUnavailable
from services.billing.ports import StripeRetryable
from services.billing.storage.secrets import Answer
from services.kit.failpoint import failpoint


async def customer_of(account_id: str, context: Context) -> str:
    """The customer's id. Two calls at once make one customer, because the key is the account and the attempt.

    Stripe answers a failure that it stored under a key for a day: after one, the next call is another attempt, which
    first looks for what the failed one may have made.
    """
    async with context.unit_of_work() as uow:
        account = await uow.accounts.get(account_id)
        attempt = 1 + await uow.answers.count(_scope(account_id))
    if account.stripe_customer_id is not None:
        return account.stripe_customer_id
    try:
        customer_id = await context.payments.create_customer(account.id, account.email, account.name, attempt)
    except StripeRetryable:
        await _note_failure(account_id, attempt, context)
        raise StripeUnavailable(
            "Stripe does not answer right now. Nothing was bought; try again in a moment.",
            retry_after=timedelta(seconds=1),
        ) from None
    failpoint("billing.customer.created")
    async with context.unit_of_work() as uow:
        kept = await uow.accounts.set_customer(account.id, customer_id)
        await uow.commit()
    return kept


async def _note_failure(account_id: str, attempt: int, context: Context) -> None:
    """Kept as long as Stripe keeps the answer."""
    async with context.unit_of_work() as uow:
        if await uow.answers.find(_scope(account_id), str(attempt)) is None:
            noted = Answer(b"", context.vault.seal(b""))
            await uow.answers.add(_scope(account_id), str(attempt), noted, context.wall.now())
            await uow.commit()


def _scope(account_id: str) -> str:
    return f"customer {account_id}"
