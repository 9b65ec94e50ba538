"""The audit log: who changed what. Written in the transaction of the change; gone when its time has come."""

from __future__ import annotations

from services.billing.application import paging
from services.billing.application.context import Context
from services.billing.domain.principal import Actor
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.audit import AuditEntry
from services.kit.ids import new_id

PURGED_AT_ONCE = 5000


async def record(
    uow: BillingUnitOfWork,
    context: Context,
    account_id: str,
    actor: Actor,
    action: str,
    subject: str,
    **details: str | int | bool | None,
) -> None:
    """One row of the change that `uow` commits. How long it stays follows from the tier of now, for good: a later
    downgrade does not shorten it. `details` hold no secret."""
    now = context.business.now()
    tier = (await uow.entitlements.get(account_id)).tier
    keep = context.catalog.audit_retention(tier)
    entry = AuditEntry(new_id("aud"), account_id, actor, action, subject, details, now, now + keep)
    await uow.audit.add(entry)


async def list_entries(account_id: str, page_size: int, page_token: str, context: Context) -> paging.Page[AuditEntry]:
    """Newest first."""
    size, before = paging.checked(page_size, page_token, "aud")
    async with context.unit_of_work() as uow:
        found = await uow.audit.list(account_id, before, size + 1, context.business.now())
    return paging.page(found, size, lambda entry: entry.id)


async def purge(context: Context) -> int:
    """Deletes what is due. Any number of replicas may run it at once."""
    gone = 0
    while True:
        async with context.unit_of_work() as uow:
            count = await uow.audit.purge(context.business.now(), PURGED_AT_ONCE)
            await uow.commit()
        gone += count
        if count < PURGED_AT_ONCE:
            return gone
