"""Accounts that are new here are read from billing: in bulk, once for all who ask, outside the lane."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from services.quota.errors import BillingUnavailable
from services.quota.events import Snapshot
from services.quota.ports import Entitlements

ABSENT_S = 5.0  # how long "billing does not know it" is believed
MOST = 1000
MOST_ABSENT = 100_000

log = structlog.get_logger(__name__)


class BillingDirectory:
    """`run` reads what `learn` waits for. While a read is under way, further ids gather for the next."""

    def __init__(self, entitlements: Entitlements, store: Callable[[Sequence[Snapshot]], Awaitable[object]]) -> None:
        self._entitlements = entitlements
        self._store = store
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._absent: dict[str, float] = {}
        self._wake = asyncio.Event()

    async def learn(self, account_ids: Iterable[str]) -> set[str]:
        """See ports.Directory."""
        loop = asyncio.get_running_loop()
        waits: dict[str, asyncio.Future[bool]] = {}
        for account_id in account_ids:
            if self._absent.get(account_id, 0.0) > loop.time():
                continue
            future = self._asked.get(account_id)
            if future is None:
                future = self._asked[account_id] = loop.create_future()
                # Those who asked may have left by the time it fails.
                future.add_done_callback(lambda done: done.cancelled() or done.exception())
                self._wake.set()
            waits[account_id] = future
        known = set()
        for account_id, future in waits.items():
            # Shielded: one caller's deadline must not fail the others who wait for the same account.
            if await asyncio.shield(future):
                known.add(account_id)
        return known

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._asked:
                self._wake.clear()
                await self._wake.wait()
            await self._read(list(self._asked)[:MOST])

    async def _read(self, account_ids: list[str]) -> None:
        try:
            snapshots = await self._entitlements.get(account_ids)
            await self._store(snapshots)
        except ValueError as error:
            # One account that this release cannot read must not stop the others.
            log.error("directory.unreadable", accounts=len(account_ids), error=str(error))
            if len(account_ids) == 1:
                self._finish(account_ids, None)
            for account_id in account_ids if len(account_ids) > 1 else ():
                await self._read([account_id])
            return
        except Exception as error:
            log.warning("directory.failed", accounts=len(account_ids), error=repr(error))
            self._finish(account_ids, None)
            return
        self._finish(account_ids, {snapshot.account_id for snapshot in snapshots})

    def _finish(self, account_ids: list[str], known: set[str] | None) -> None:
        now = asyncio.get_running_loop().time()
        if len(self._absent) > MOST_ABSENT:
            self._absent = {account_id: until for account_id, until in self._absent.items() if until > now}
            if len(self._absent) > MOST_ABSENT:
                self._absent.clear()
        for account_id in account_ids:
            future = self._asked.pop(account_id)
            with contextlib.suppress(asyncio.InvalidStateError):
                if known is None:
                    future.set_exception(BillingUnavailable())
                else:
                    future.set_result(account_id in known)
                    if account_id not in known:
                        self._absent[account_id] = now + ABSENT_S
