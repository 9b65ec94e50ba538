"""Whatever decides, put together for one suite: the plain model, and the lane on PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.quota.domain import Command, Outcome
from services.quota.lane import Lane
from tests.contract.quota.model import ModelDecider
from tests.integration.quota import lanes, world
from tollway.billing.v1 import entitlement_pb2

KINDS = ("model", "postgres")


class Decider(Protocol):
    def decide(self, commands: Sequence[Command], time_left_s: float | None, /) -> Awaitable[list[Outcome]]: ...

    async def total(self, account_id: str) -> int:
        """Units of `messages` that are counted, in the ledger too."""
        ...


@dataclass
class LaneDecider:
    lane: Lane
    engine: AsyncEngine

    def decide(self, commands: Sequence[Command], time_left_s: float | None, /) -> Awaitable[list[Outcome]]:
        return self.lane.decide(commands, time_left_s)

    async def total(self, account_id: str) -> int:
        counter = (
            "SELECT coalesce(sum(used), 0) FROM counter"
            " WHERE account_id = :id AND period = 'lifetime' AND meter = 'messages'"
        )
        ledger = (
            "SELECT coalesce(sum(amount), 0) FROM idem WHERE account_id = :id AND meter = 'messages' AND NOT reversed"
        )
        async with self.engine.connect() as connection:
            used, written = [
                int((await connection.execute(text(statement), {"id": account_id})).scalar_one())
                for statement in (counter, ledger)
            ]
        assert written == used
        return used


@contextlib.asynccontextmanager
async def deciding(request: pytest.FixtureRequest, *accounts: entitlement_pb2.Entitlements) -> AsyncIterator[Decider]:
    """The decider of the fixture's parameter, one of `KINDS`, that knows the accounts."""
    if request.param == "model":
        yield ModelDecider(*accounts)
        return
    dsn = request.getfixturevalue("quota_database")
    async with world.tables(dsn) as engine:
        await world.put(engine, *accounts)
        async with lanes.serving(engine, dsn) as lane:
            yield LaneDecider(lane, engine)


async def one(decider: Decider, command: Command) -> Outcome:
    return (await decider.decide([command], 10.0))[0]
