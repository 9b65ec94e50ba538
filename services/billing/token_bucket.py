"""The rate of calls to Stripe: a token bucket in which people's checkouts go before background reads (DESIGN §4)."""

from __future__ import annotations

import asyncio
import heapq
import itertools

PEOPLE, BACKGROUND = 0, 1  # who goes first when calls have to wait


class TokenBucket:
    """At most `rate` calls a second on average and as many at once; lower priority numbers go first."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._last: float | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, priority: int) -> None:
        self._refill()
        if not self._waiting and self._tokens >= 1:
            self._tokens -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        self._arm()
        await turn

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._last is not None:
            self._tokens = min(self._rate, self._tokens + (now - self._last) * self._rate)
        self._last = now

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            delay = max(0.0, (1 - self._tokens) / self._rate)
            self._timer = asyncio.get_running_loop().call_later(delay, self._serve)

    def _serve(self) -> None:
        self._timer = None
        self._refill()
        # A rounding of the clock must not cost a turn.
        while self._waiting and self._tokens >= 1 - 1e-6:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():  # its caller may have given up
                self._tokens -= 1
                turn.set_result(None)
        self._arm()
