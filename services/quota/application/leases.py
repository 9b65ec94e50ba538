"""An account's live leases, page by page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from services.kit.errors import InvalidArgument
from services.quota.domain import Lease
from services.quota.errors import AccountNotFound
from services.quota.ports import Directory, Reading

DEFAULT_PAGE = 100
MOST_PAGE = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


async def list_leases(
    account_id: str, meter: str, page_size: int, page_token: str, new_uow: Callable[[], Reading], directory: Directory
) -> tuple[Sequence[Lease], str]:
    """A page, oldest first, and the token of the next one (empty at the end). `meter` empty: of every meter.

    Raises InvalidArgument (`page_token`), AccountNotFound, BillingUnavailable.
    """
    size = min(page_size, MOST_PAGE) if page_size > 0 else DEFAULT_PAGE
    after = _read_token(page_token) if page_token else None
    async with new_uow() as uow:
        leases = await uow.leases.list(account_id, meter, after, size + 1)
        unknown = not leases and await uow.accounts.get(account_id) is None
    if unknown and not await directory.learn([account_id]):
        raise AccountNotFound
    following = _token(leases[size - 1]) if len(leases) > size else ""
    return leases[:size], following


def _token(last: Lease) -> str:
    return f"{(last.acquire_time - _EPOCH) // _MICROSECOND}.{last.id}"


def _read_token(token: str) -> tuple[datetime, str]:
    micros, _, lease_id = token.partition(".")
    # As many digits as the year 9999 needs.
    if not (micros.isascii() and micros.isdigit() and len(micros) <= 18 and lease_id.isprintable() and lease_id):
        raise InvalidArgument("This is no page token of ours.", field="page_token")
    try:
        return _EPOCH + int(micros) * _MICROSECOND, lease_id
    except OverflowError:
        raise InvalidArgument("This is no page token of ours.", field="page_token") from None
