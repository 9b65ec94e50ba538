"""The loop that sends what waits: a few at a time, prompt after an event, patient while anything is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from services.kit import telemetry
from services.kit.failpoint import failpoint
from services.notify import application, ports
from services.notify.storage import PostgresMailbag

SLOTS = 8  # at once; a slow mail server or recipient holds one, not all
POLL_S = 1.0  # retries that came due, and what another replica left; our own events wake us at once
HOUSEKEEPING_S = 5.0
DRAIN_S = 8.0

log = structlog.get_logger(__name__)


class Sender:
    def __init__(self, bag: PostgresMailbag, write: ports.Writer, mailer: ports.Mailer) -> None:
        self._bag = bag
        self._write = write
        self._mailer = mailer
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._counts: dict[str, int] = {}
        for state in ("pending", "sending", "unknown", "dead"):
            telemetry.gauge(f"tollway_messages_{state}", partial(self._count, state))

    def _count(self, state: str) -> float:
        return self._counts.get(state, 0)

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; then it lets what is under way finish, for up to 8 seconds."""
        loop = asyncio.get_running_loop()
        failures, housekeeping = 0, 0.0
        try:
            while True:
                self._wake.clear()
                claimed = 0
                try:
                    if loop.time() >= housekeeping:
                        await self._housekeep()
                        housekeeping = loop.time() + HOUSEKEEPING_S
                    claimed = await self._start_some()
                    failures = 0
                except Exception as error:
                    failures += 1
                    log.warning("sender.delayed", error=type(error).__name__, failures=failures)
                if claimed == 0 or len(self._running) >= SLOTS:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), min(POLL_S * 2 ** min(failures, 3), 5.0))
        finally:
            if self._running:
                await asyncio.wait(self._running, timeout=DRAIN_S)
            for task in self._running:
                task.cancel()

    async def _housekeep(self) -> None:
        if lost := await self._bag.expire():
            log.error("messages.unknown", count=lost)
        self._counts = await self._bag.counts()

    async def _start_some(self) -> int:
        free = SLOTS - len(self._running)
        if free == 0:
            return 0
        claimed = await self._bag.claim(free)
        if claimed:
            failpoint("notify.claimed")
        for message in claimed:
            task = asyncio.create_task(self._one(message), name=f"send {message.id}")
            self._running.add(task)
            task.add_done_callback(self._finished)
        return len(claimed)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()  # a slot is free
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sender.failed", error=repr(error))

    async def _one(self, message: ports.Claimed) -> None:
        began = asyncio.get_running_loop().time()
        try:
            verdict = await application.send(message, self._bag, self._write, self._mailer)
        except application.ClaimLapsed:
            return
        except Exception as error:
            # The database went away before the content was sent.
            log.warning("message.released", message=message.id, error=type(error).__name__)
            await _until_stored(lambda: self._bag.release(message), message)
            return
        # Known now, and only here: it is written down as soon as the database is there to take it.
        await _until_stored(lambda: self._bag.settle(message, verdict), message)
        failpoint("notify.recorded")
        telemetry.count("tollway_message_tries_total", 1, outcome=verdict.state.value)
        telemetry.observe("tollway_message_try_seconds", asyncio.get_running_loop().time() - began)
        level = log.info if verdict.state.value == "sent" else log.warning
        level("message.tried", message=message.id, tries=message.tries, state=verdict.state.value, error=verdict.error)


async def _until_stored(store: Callable[[], Awaitable[None]], message: ports.Claimed) -> None:
    delay = 0.1
    while True:
        try:
            await store()
        except Exception as error:
            log.warning("message.unrecorded", message=message.id, error=type(error).__name__)
            await asyncio.sleep(delay)  # the database is away: pause between attempts
            delay = min(delay * 2, 5.0)
        else:
            return
