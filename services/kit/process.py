"""A service as a process: starts its parts, waits for SIGTERM or for a part that dies, stops in order."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
import uvloop

log = structlog.get_logger(__name__)


class Tasks:
    """Background loops that must not end. If one does, the process stops and its supervisor starts it anew."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self.failed = asyncio.Event()

    def start(self, loop: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("task.ended", task=task.get_name(), error=repr(task.exception()))
            self.failed.set()

    async def stop(self) -> None:
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _until_stopped(service: Callable[[Tasks], AbstractAsyncContextManager[None]]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = Tasks()
    async with service(tasks):
        # What start-up allocated lives for ever: keep the collector off it, or it costs the slowest percent.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        log.info("ready")
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(tasks.failed.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        log.info("stopping")
    return 1 if tasks.failed.is_set() else 0


def run(service: Callable[[Tasks], AbstractAsyncContextManager[None]]) -> None:
    """Runs `service`, an async context manager that starts on entry and drains on exit, and exits the process."""
    try:
        sys.exit(uvloop.run(_until_stopped(service)))
    except RuntimeError as error:
        if "bind" not in str(error).lower():
            raise
        print(f"cannot listen: {error}", file=sys.stderr)
        sys.exit(74)
