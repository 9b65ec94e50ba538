"""A lane in the test's own process, over a database that the test may reach in other ways too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.clock import BusinessClock
from services.quota.domain import Command, Decision, Outcome
from services.quota.lane import PATIENCE_S, QUEUE, Lane
from services.quota.maintenance import make_days
from services.quota.storage import Plans
from services.quota.store import Store


@contextlib.asynccontextmanager
async def serving(
    engine: AsyncEngine,
    dsn: str,
    *,
    clock: BusinessClock | None = None,
    queue: int = QUEUE,
    patience_s: float = PATIENCE_S,
) -> AsyncIterator[Lane]:
    """Put together as the service does it."""
    plans = Plans()
    lane = Lane(
        Store(dsn, plans, clock or BusinessClock()),
        make_days=lambda: make_days(engine),
        passes=plans.passes_when_down,
        queue=queue,
        patience_s=patience_s,
    )
    running = asyncio.create_task(lane.run())
    try:
        yield lane
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def taken(*lanes: Lane) -> None:
    """Until they have taken what waits into a batch."""
    async with asyncio.timeout(5):
        while any(len(lane) for lane in lanes):  # noqa: ASYNC110 - a lane announces to nobody what it takes
            await asyncio.sleep(0)


async def one(lane: Lane, command: Command, deadline_s: float = 20.0) -> Outcome:
    return (await lane.decide([command], deadline_s))[0]


async def decided(lane: Lane, command: Command, deadline_s: float = 20.0) -> Decision:
    """For commands that answer with a decision, refused or not."""
    outcome = await one(lane, command, deadline_s)
    assert isinstance(outcome, Decision), outcome
    return outcome


def allowed(outcomes: Sequence[Outcome]) -> int:
    return sum(isinstance(outcome, Decision) and outcome.allowed for outcome in outcomes)


async def rows(engine: AsyncEngine, statement: str, **parameters: object) -> list[tuple[object, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(statement), parameters)]


async def totals(engine: AsyncEngine, account_id: str = "acct_a") -> tuple[int, int]:
    """Of the account: units in its lifetime counters, units in its ledger that were not taken back."""
    counted = await rows(
        engine,
        "SELECT coalesce(sum(used), 0) FROM counter WHERE account_id = :id AND period = 'lifetime'",
        id=account_id,
    )
    written = await rows(
        engine,
        # A meter's name begins with a letter; what else the ledger tells of begins with a control character.
        "SELECT coalesce(sum(amount), 0) FROM idem WHERE account_id = :id AND NOT reversed AND ascii(meter) > 31",
        id=account_id,
    )
    return int(str(counted[0][0])), int(str(written[0][0]))
