"""A service as a process: starts its parts, waits for SIGTERM or for a part that dies, stops in order."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
import uvloop

from services.kit.config import EX_CONFIG, ConfigurationError

EX_SOFTWARE, EX_IOERR = 70, 74  # sysexits.h

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
            log.error("task.ended", task=task.get_name(), exc_info=task.exception())
            self.failed.set()

    async def stop(self) -> None:
        """Cancels the loops, the last started first, and waits for them."""
        await cancel_until_done(list(reversed(self._tasks)))


async def cancel_until_done(tasks: Sequence[asyncio.Task[None]], *, patience_s: float = 5.0) -> None:
    """Cancels the tasks and waits for their end, whatever it is. Those that go on are cancelled again.

    Python 3.11's `asyncio.wait_for` swallows a cancellation that comes together with what it waited for, and a loop
    that lost one that way would never end. Patience leaves time for an orderly end, such as a relay's batch.
    """
    pending = [task for task in tasks if not task.done()]
    while pending:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=patience_s)
        pending = [task for task in pending if not task.done()]


async def _until_stopped(service: Callable[[Tasks], AbstractAsyncContextManager[None]]) -> int:
    stop = asyncio.Event()
    me = asyncio.current_task()
    assert me is not None  # noqa: S101 - uvloop.run made it
    started = False

    def on_signal() -> None:
        stop.set()
        if not started:  # it may be waiting for a database that never comes
            me.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    tasks = Tasks()
    try:
        async with service(tasks):
            started = True
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
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    return 1 if tasks.failed.is_set() else 0


def run(service: Callable[[Tasks], AbstractAsyncContextManager[None]]) -> None:
    """Runs `service`, an async context manager that starts on entry and drains on exit, and exits the process."""
    try:
        code = uvloop.run(_until_stopped(service))
    except ConfigurationError as error:
        print(f"configuration: {error}", file=sys.stderr)
        sys.exit(EX_CONFIG)
    except Exception as error:
        if isinstance(error, RuntimeError) and "bind" in str(error).lower():
            print(f"cannot listen: {error}", file=sys.stderr)
            sys.exit(EX_IOERR)
        log.exception("process.failed")  # not left to Python: its traceback would not be redacted
        sys.exit(EX_SOFTWARE)
    sys.exit(code)
