"""What billing says an account may do: as an event, as an answer, and read again so that a lost event heals."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from services.kit.inbox import Received
from services.quota.events import Snapshot, to_snapshot
from services.quota.ports import Entitlements
from services.quota.storage import QuotaUnitOfWork
from tollway.billing.v1 import events_pb2

PLACE = "entitlements"


async def believe(event: Received, uow: QuotaUnitOfWork) -> None:
    """Acts on EntitlementsChanged: an older version than ours changes nothing."""
    assert isinstance(event.message, events_pb2.EntitlementsChanged)  # noqa: S101 - the consumer's only kind
    snapshot = to_snapshot(event.message.entitlements)
    async with uow:
        if await uow.inbox.accept(event):
            await uow.accounts.apply([snapshot])
            await uow.commit()


async def store(snapshots: Iterable[Snapshot], uow: QuotaUnitOfWork) -> None:
    """Keeps what billing answered."""
    async with uow:
        await uow.accounts.apply(snapshots)
        await uow.commit()


async def heal(entitlements: Entitlements, new_uow: Callable[[], QuotaUnitOfWork]) -> int:
    """Reads what changed at billing since the last time, so that a lost event heals. Returns how many did here."""
    async with new_uow() as uow:
        token = await uow.places.get(PLACE)
    healed, more = 0, True
    while more:
        snapshots, token, more = await entitlements.changed_since(token)
        async with new_uow() as uow:
            healed += await uow.accounts.apply(snapshots)
            # In the same transaction: a crash reads this page again and never skips it.
            await uow.places.keep(PLACE, token)
            await uow.commit()
    return healed
