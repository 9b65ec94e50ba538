"""The default clock, and the work that a clock reaches as it moves.

The default clock is wall time plus whole seconds kept in a file that other processes may read. Only this module writes
it: by rename, never backwards, and before the work of that instant is done, so that who sees the work sees the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from . import checkout, collection, invoice_life, invoice_preview, lifecycle, refunds, test_clocks
from .context import Context
from .store import Store

log = logging.getLogger("stripe_sandbox")

TASKS: dict[str, Callable[[Context, str], None]] = {
    "upcoming": invoice_preview.upcoming_due,
    "turn": lifecycle.turn_due,
    "trial_will_end": lifecycle.trial_will_end_due,
    "collect_again": lifecycle.collect_again_due,
    "expire": lifecycle.expire_due,
    "finalize": invoice_life.finalize_due,
    "retry": collection.retry_due,
    "refund_settles": refunds.settle_due,
    "checkout_expire": checkout.expire_due,
}


class DefaultClock:
    def __init__(self, file: Path) -> None:
        self.file = file
        self._stamp: tuple[int, int] | None = None
        self._offset = 0

    def offset(self) -> int:
        try:
            stat = os.stat(self.file)
        except FileNotFoundError:
            return self._offset
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._stamp:
            self._offset = int(self.file.read_text().strip() or 0)
            self._stamp = stamp
        return self._offset

    def now(self) -> int:
        return int(time.time()) + self.offset()

    def reach(self, moment: int) -> None:
        """Moves the offset so that the clock shows at least `moment`."""
        offset = moment - int(time.time())
        if offset <= self.offset():
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        fresh.write_text(f"{offset}\n")
        fresh.replace(self.file)


class Timekeeper:
    """Does due work in order, one task a transaction, for the default clock and for test clocks."""

    def __init__(
        self, store: Store, clock: DefaultClock, context: Callable[[], Context], committed: Callable[[Context], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._context = context
        self._committed = committed
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._spawn(self._tick())
        for clock in self._store.all("test_helpers.test_clock"):
            if clock["status"] == "advancing":
                self.advance_test_clock(clock["id"])

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _do(self, clock: str | None, at: int) -> bool:
        """One task due at `at` or before; False when there is none."""
        due = self._store.first_due(clock, at)
        if due is None:
            return False
        object_id, task, moment = due
        ctx = self._context()
        ctx.as_of[clock or ""] = moment
        try:
            with self._store.transaction():
                # Gone before it runs: a task that sets its own next time sets a new one.
                self._store.cancel_jobs(object_id, task)
                TASKS[task](ctx, object_id)
        except Exception:
            # Left in place it would stop this clock for ever.
            with self._store.transaction():
                self._store.cancel_jobs(object_id, task)
            log.exception("due work failed: %s of %s", task, object_id)
            raise
        self._committed(ctx)
        return True

    async def _catch_up(self, clock: str | None, to: int, arrive: Callable[[int], None]) -> None:
        while (due := self._store.next_due(clock)) is not None and due <= to:
            arrive(due)
            self._do(clock, due)
            # Let deliveries and requests in between.
            await asyncio.sleep(0)

    async def advance(self, to: int) -> int:
        """Moves the default clock to `to` through all due work; returns the time reached. Backwards: ValueError."""
        async with self._lock:
            if to < self._clock.now():
                raise ValueError("the clock only moves forward")
            await self._catch_up(None, to, self._clock.reach)
            self._clock.reach(to)
            return self._clock.now()

    async def _tick(self) -> None:
        """Wall time moves the default clock too."""
        while True:
            async with self._lock:
                with contextlib.suppress(Exception):
                    await self._catch_up(None, self._clock.now(), lambda _: None)
            due = self._store.next_due(None)
            wait = 1.0 if due is None else min(1.0, max(0.05, due - self._clock.now()))
            await asyncio.sleep(wait)

    def advance_test_clock(self, clock_id: str) -> None:
        self._spawn(self.finish(clock_id))

    async def finish(self, clock_id: str) -> None:
        """Does all due work of an advancing test clock, until it shows the time it was told."""
        async with self._lock:
            clock = self._store.get(clock_id)
            if clock is None or clock["status"] != "advancing":
                return
            target = int(clock["status_details"]["advancing"]["target_frozen_time"])

            def arrive(moment: int) -> None:
                current = self._store.get(clock_id)
                if current is not None and moment > current["frozen_time"]:
                    self._store.put(current | {"frozen_time": moment})

            failed = False
            try:
                await self._catch_up(clock_id, target, arrive)
                arrive(target)
            except Exception:
                failed = True  # logged where it happened; the clock says so
            ctx = self._context()
            with self._store.transaction():
                test_clocks.arrived(ctx, clock_id, failed=failed)
            self._committed(ctx)
