"""Where an account wants its mail."""

from __future__ import annotations

from dataclasses import replace

from services.billing.application import audit, customer_push
from services.billing.application.accounts import checked_email
from services.billing.application.context import Context
from services.billing.domain.principal import Actor
from services.billing.errors import AccountErased
from services.billing.storage.accounts import Account
from services.kit.failpoint import failpoint


async def set_contact(account_id: str, email: str, actor: Actor, context: Context) -> tuple[Account, bool]:
    """The account with its new address, which whoever asks vouches for; and whether Stripe has it already. Members and
    their ways to sign in stay as they are."""
    address = checked_email(email)
    async with context.unit_of_work() as uow:
        before = await uow.accounts.get(account_id, lock=True)
        if before.erase_time is not None:
            raise AccountErased("This account was erased.")
        after = replace(before, email=address, contact_verify_time=context.wall.now())
        await uow.accounts.set_contact(after)
        if address != before.email:
            # The log outlives the address: it does not hold it.
            await audit.record(uow, context, account_id, actor, "contact.changed", account_id)
        await uow.pushes.want(account_id)
        failpoint("billing.contact.before_commit")
        await uow.commit()
    return after, await customer_push.push_now(account_id, context)
