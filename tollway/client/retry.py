"""Asking again, within one deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tollway.client.errors import Closed, Unavailable

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """How long to wait for one attempt and between two. Seconds."""

    # The service itself gives up on its store after two seconds and says so: silence for longer is a lost answer.
    attempt_s: float = 3.0
    first_s: float = 0.05
    longest_s: float = 1.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    jitter: Callable[[], float] = random.random  # 0 to 1: callers that failed together do not come back together


PACE = Pace()


async def retrying(attempt: Callable[[float], Awaitable[T]], timeout_s: float, pace: Pace = PACE) -> T:
    """Calls `attempt(its seconds)` until it does not raise Unavailable; that is raised when the time is over, Closed at
    once.

    The wait doubles up to `longest_s`, with jitter, on top of what the other side asked for (RetryInfo). A wait that
    would end after the deadline is not begun: the caller hears at once.
    """
    deadline = pace.clock() + timeout_s
    ceiling = pace.first_s
    while True:
        try:
            return await attempt(min(pace.attempt_s, deadline - pace.clock()))
        except Closed:
            raise
        except Unavailable as error:
            wished = error.retry_after.total_seconds() if error.retry_after is not None else 0.0
            pause = max(0.0, wished) + ceiling * pace.jitter()
            if pace.clock() + pause >= deadline:
                raise
        await pace.sleep(pause)
        ceiling = min(ceiling * 2, pace.longest_s)
