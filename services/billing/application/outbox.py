"""Events told again: after the stream was lost, or for whoever is new. DESIGN §7: the outbox is the truth."""

from __future__ import annotations

import re
from datetime import datetime

from services.billing.application.context import Context
from services.kit.errors import InvalidArgument
from services.kit.outbox import Republished

BATCH = 200  # accounts; each event is some kilobytes


async def republish(since: datetime | None, page_token: str, context: Context) -> Republished:
    """The next events that were published at or after `since`."""
    async with context.unit_of_work() as uow:
        done = await uow.outbox.republish(since, page_token)
        await uow.commit()
    return done


async def announce_snapshots(page_token: str, context: Context) -> tuple[int, str]:
    """What the next accounts are entitled to, with the versions that they have. How many, and where to go on."""
    if page_token and not re.fullmatch(r"acct_[A-Za-z0-9]{1,90}", page_token):
        raise InvalidArgument("This is no page token of ours.", field="page_token")
    async with context.unit_of_work() as uow:
        page = await uow.entitlements.page(page_token, BATCH)
        for each in page:
            event = context.announcer.entitlements_changed(each.entitlement, each.change_time, snapshot=True)
            uow.outbox.add(event, each.entitlement.account_id)
        await uow.commit()
    return len(page), page[-1].entitlement.account_id if len(page) == BATCH else ""
