"""Work that goes on after its answer. It is in this process only: what must not be lost belongs in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import structlog

from services.kit.errors import Unavailable

MOST = 256
DRAIN_S = 8.0

log = structlog.get_logger(__name__)


class Later:
    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __call__(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts it. Raises Unavailable when too much is under way."""
        if len(self._running) >= MOST:
            work.close()
            raise Unavailable(
                "Too much is being asked at once. Try again in a moment.", retry_after=timedelta(seconds=5)
            )
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("later.failed", error=repr(error))

    async def finished(self) -> None:
        """Waits for all that is under way, for up to 8 seconds, and gives the rest up."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=DRAIN_S)
            for task in late:
                task.cancel()
