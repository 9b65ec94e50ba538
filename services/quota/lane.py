"""The lane: everything a process decides goes through one queue and one connection, batch by batch.

What waits becomes a batch. A batch is opened, decided in Python, verified, written and committed, and only then
answered; see `store`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog
from uuid_utils import uuid7

from services.kit import telemetry
from services.kit.errors import TollwayError
from services.quota.connection import Verdict
from services.quota.crowd import Crowd
from services.quota.domain import Command, Decision, Outcome, Unknown, Use, settle
from services.quota.errors import Expired, QueueFull, StoreUnavailable
from services.quota.store import Store

BATCH = 512
QUEUE = 16_384
LINGER_S = 0.005  # the longest that a batch waits for more to come; see `crowd`
GAP_S = 0.001  # with nobody coming for so long, all have come; the event loop's timers know no less
PATIENCE_S = 2.0  # how long a use waits for its turn; then its caller hears UNAVAILABLE

log = structlog.get_logger(__name__)


class _Call:
    """The uses of one caller, and the place for their outcomes."""

    __slots__ = ("deadline", "future", "left", "outcomes")

    def __init__(self, count: int, future: asyncio.Future[list[Outcome]], deadline: float) -> None:
        self.outcomes: list[Outcome | None] = [None] * count
        self.left = count
        self.future = future
        self.deadline = deadline


class _Ask:
    """One use on its way through the lane."""

    __slots__ = ("arrived", "call", "index", "use")

    def __init__(self, use: Command, call: _Call, index: int, arrived: float) -> None:
        self.use = use
        self.call = call
        self.index = index
        self.arrived = arrived

    def answer(self, outcome: Outcome) -> None:
        call = self.call
        if call.outcomes[self.index] is not None:
            return  # it had waited too long, and was told so
        call.outcomes[self.index] = outcome
        call.left -= 1
        if call.left == 0 and not call.future.done():
            call.future.set_result(call.outcomes)  # type: ignore[arg-type]  # none is None: each was answered


def new_key() -> str:
    """A ledger key for a caller without one. It begins with a character that no caller's key may hold."""
    return "\x1f" + uuid7().hex


class Lane:
    """`decide` queues; `run` is the loop that serves the queue; `make_days` creates missing ledger partitions.

    `linger_s` 0: a batch is whatever waits when the one before it was answered.
    """

    def __init__(
        self,
        store: Store,
        *,
        make_days: Callable[[], Awaitable[None]],
        passes: Callable[[str], bool] = lambda meter: False,
        queue: int = QUEUE,
        batch: int = BATCH,
        linger_s: float = LINGER_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._store = store
        self._connection = store.connection
        self._make_days = make_days
        self._passes = passes
        self._down = False
        self._limit = queue
        self._batch = batch
        self._linger_s = linger_s
        self._patience_s = patience_s
        self._queue: deque[_Ask] = deque()
        self._crowd = Crowd()
        self._goal = 1  # so many uses in the queue wake the loop
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def decide(self, uses: Sequence[Command], time_left_s: float | None) -> asyncio.Future[list[Outcome]]:
        """See ports.Decider. Raises QueueFull."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Outcome]] = loop.create_future()
        full = len(self._queue) + len(uses) > self._limit
        if (full or self._down) and all(self._may_pass(use) for use in uses):
            future.set_result([_unverified(use) for use in uses])
            return future
        if full:
            telemetry.count("tollway_quota_queue_full_total", len(uses))
            raise QueueFull
        now = loop.time()
        call = _Call(len(uses), future, now + time_left_s if time_left_s is not None else float("inf"))
        for index, use in enumerate(uses):
            self._queue.append(_Ask(use, call, index, now))
        if len(self._queue) >= self._goal:
            self._wake.set()
        return future

    async def run(self) -> None:
        """Until cancelled. A database that is away delays it, never ends it."""
        sweeper = asyncio.create_task(self._sweep(), name="lane.sweep")
        try:
            while True:
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                if self._linger_s:
                    await self._gather()
                batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
                await self._flush(batch)
                self._crowd.saw(len(batch) + len(self._queue))
                if self._down:
                    await self._find_store()
        finally:
            sweeper.cancel()
            await self._connection.close()

    async def _gather(self) -> None:
        """Until enough wait for a batch, or nobody else comes."""
        loop, queue = asyncio.get_running_loop(), self._queue
        goal, end = self._crowd.goal(self._batch), loop.time() + self._linger_s
        while (waiting := len(queue)) < goal and (began := loop.time()) < end:
            self._goal = goal
            self._wake.clear()
            gap = loop.call_later(GAP_S, self._wake.set)
            await self._wake.wait()
            gap.cancel()
            # Where the timer comes late the loop was busy, perhaps with those who were on their way here.
            if len(queue) == waiting and loop.time() - began < 2 * GAP_S:
                self._crowd.saw_all(waiting)
                break
        self._goal = 1

    async def _flush(self, asks: list[_Ask]) -> None:
        tries, locking = 0, False
        while asks := self._waiting(asks):
            outcomes: list[Outcome] = []
            try:
                uses = [ask.use for ask in asks]
                opened = await self._store.open(uses, locking=locking)
                settled = settle(uses, opened, new_key)
                outcomes = settled.outcomes
                if not await self._store.save(settled, opened):
                    locking = True
                    continue
            except Exception as error:
                tries += 1
                verdict = await self._connection.judge(error)
                log.warning("lane.failed", verdict=verdict.name, error=repr(error), uses=len(asks), tries=tries)
                self._down = verdict is Verdict.LOST
                if self._down and self._connection.sent is not None:
                    saved = await self._recover(asks)
                    self._down = False
                    if saved:
                        self._answer(asks, outcomes)
                        return
                elif verdict is Verdict.NO_DAY and tries < 3:
                    await self._make_missing_days()
                elif verdict in (Verdict.FATAL, Verdict.NO_DAY):
                    await self._one_by_one(asks, error)
                    return
                elif tries > 1:
                    await asyncio.sleep(min(0.02 * tries, 0.25))  # backoff between attempts of the same batch
            else:
                self._down = False
                self._answer(asks, outcomes)
                return

    async def _find_store(self) -> None:
        """However long it is away. Uses that pass meanwhile do not queue, so none of them would look for it."""
        if not self._connection.is_open:
            await self._connection.recover()
        self._down = False

    async def _recover(self, asks: list[_Ask]) -> bool:
        """Whether the batch in doubt was saved. It is found out for as long as it takes; its callers wait no longer
        than others do, and may then have been granted what they were not told.
        """
        finding_out = asyncio.ensure_future(self._connection.recover())
        try:
            while not (await asyncio.wait((finding_out,), timeout=self._patience_s / 8))[0]:
                self._waiting(asks, late=StoreUnavailable)  # not Expired, of which nothing was counted
        finally:
            finding_out.cancel()
        return finding_out.result()

    async def _one_by_one(self, asks: list[_Ask], error: Exception) -> None:
        """One bad use must not fail its neighbours."""
        if len(asks) > 1:
            for ask in asks:
                await self._flush([ask])
            return
        log.error("lane.refused", error=repr(error))
        asks[0].answer(TollwayError("This use could not be stored; the reason is in the log."))

    async def _make_missing_days(self) -> None:
        try:
            await self._make_days()
        except Exception as error:
            log.warning("lane.days", error=repr(error))

    def _waiting(self, asks: Iterable[_Ask], late: Callable[[], TollwayError] = Expired) -> list[_Ask]:
        """Those whose callers still wait; the others are told, or have left."""
        now = asyncio.get_running_loop().time()
        oldest = now - self._patience_s
        still = []
        for ask in asks:
            if ask.call.future.done():
                continue
            if ask.call.deadline <= now:
                ask.answer(late())
            elif ask.arrived <= oldest:
                ask.answer(_unverified(ask.use) if self._may_pass(ask.use) else StoreUnavailable())
            else:
                still.append(ask)
        return still

    def _may_pass(self, command: Command) -> bool:
        """Whether the catalog lets it pass uncounted while the store is away, and no kill switch that was thrown
        before refuses it.
        """
        return isinstance(command, Use) and self._passes(command.meter) and not self._store.is_suspended(command.meter)

    async def _sweep(self) -> None:
        """While a batch is stuck, those behind it hear in time that it is."""
        while True:
            await asyncio.sleep(self._patience_s / 8)  # a period, not a wait for something
            oldest = asyncio.get_running_loop().time() - self._patience_s
            while self._queue and self._queue[0].arrived <= oldest:
                self._waiting((self._queue.popleft(),))

    def _answer(self, asks: list[_Ask], outcomes: list[Outcome]) -> None:
        for ask, outcome in zip(asks, outcomes, strict=True):
            ask.answer(outcome)
        for kind, number in Counter(map(_kind, outcomes)).items():
            telemetry.count("tollway_quota_decisions_total", number, outcome=kind)
        telemetry.count("tollway_quota_batches_total", 1, size=_size(len(asks)))


def _unverified(command: Command) -> Decision:
    """What passes blind is logged, so that it can be counted by hand: once for each key."""
    if isinstance(command, Use) and command.amount and not command.dry_run:
        telemetry.count("tollway_quota_unverified_total")
        log.warning(
            "lane.unverified",
            account_id=command.account_id,
            meter=command.meter,
            amount=command.amount,
            request_id=command.key,
            key_id=command.key_id,
        )
    return Decision("", 0, [], unverified=True)


def _kind(outcome: Outcome) -> str:
    if isinstance(outcome, Decision):
        if outcome.replayed:
            return "replayed"
        return "allowed" if outcome.refused is None else "refused"
    if isinstance(outcome, TollwayError):
        return outcome.error_reason.lower()
    return "unknown_account" if isinstance(outcome, Unknown) else "done"


def _size(uses: int) -> str:
    for bound in (1, 8, 64):
        if uses <= bound:
            return f"le_{bound}"
    return f"le_{BATCH}"
