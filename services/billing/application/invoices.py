"""An account's invoices, as last read from Stripe."""

from __future__ import annotations

import re

from services.billing.application import paging
from services.billing.application.context import Context
from services.billing.domain.subscription import Invoice
from services.kit.errors import InvalidArgument

_ID = re.compile(r"in_[A-Za-z0-9_]{1,250}")


async def list_invoices(account_id: str, page_size: int, page_token: str, context: Context) -> paging.Page[Invoice]:
    """Newest first, drafts left out; a page's token is the id of its last invoice. Raises AccountNotFound."""
    size, _ = paging.checked(page_size, "", "")
    if page_token and not _ID.fullmatch(page_token):
        raise InvalidArgument("This is no page token of ours.", field="page_token")
    async with context.unit_of_work() as uow:
        await uow.accounts.get(account_id)
        found = await uow.snapshots.listed_invoices(account_id, page_token, size + 1)
    return paging.page(found, size, lambda invoice: invoice.id)
