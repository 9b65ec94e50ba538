"""Work that is done together: what comes while a batch is under way is the next batch.

One alone does not wait for others to come. Of many at once each waits for one batch besides its own, instead of for its
turn at a lock and at the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batches(Generic[T, R]):
    """`work` does a list and gives as many results. If it fails on several, each is tried alone, so that one that
    cannot be done does not fail its neighbours: it must be safe to repeat."""

    def __init__(self, work: Callable[[list[T]], Awaitable[list[R]]], most: int = 64) -> None:
        self._work = work
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._running: asyncio.Task[None] | None = None

    async def do(self, item: T) -> R:
        """The item's result, or what `work` raised for it."""
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await done

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                # Whose caller has left is not done: nobody would hear of it.
                batch = [each for each in batch if not each[1].done()]
                if not await self._together(batch):
                    for each in batch:
                        await self._together([each])
        finally:
            self._running = None
            for _, done in self._waiting:  # only when it was cancelled: the process ends
                done.cancel()
            self._waiting.clear()

    async def _together(self, batch: list[tuple[T, asyncio.Future[R]]]) -> bool:
        """False: it failed on several, and none of them has been told anything."""
        if not batch:
            return True
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                return False
            if not batch[0][1].done():
                batch[0][1].set_exception(error)
            return True
        except asyncio.CancelledError:
            for _, done in batch:
                done.cancel()
            raise
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)
        return True
