"""Totals of what is sold by the unit: while they change, at the end of the period, once, whoever announces."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from local import ports
from services.kit.clock import BusinessClock
from services.quota import totals
from services.quota.domain import Reversal, Reverse, UsageRecorded, Use
from services.quota.lane import Lane
from services.quota.storage import Plans, QuotaUnitOfWork
from tests.integration.quota import lanes, world
from tests.integration.quota.lanes import decided, one, serving
from tollway.billing.v1 import entitlement_pb2
from tollway.quota.v1 import events_pb2

ANCHOR = (datetime.now(UTC) - timedelta(days=10)).replace(microsecond=0)


def sold(account_id: str = "acct_a") -> entitlement_pb2.Entitlements:
    """`messages` at a price, and a period that began ten days ago."""
    message = world.entitlements(account_id, limit=None)
    message.meters[0].overage_unit_price, message.meters[0].currency = "0.5", "usd"
    message.period_anchor.FromDatetime(ANCHOR)
    message.period_interval = "month"
    return message


@dataclass
class Books:
    engine: AsyncEngine
    lane: Lane
    clock_file: Path

    async def use(self, amount: int, key: str = "", account_id: str = "acct_a") -> None:
        assert (await decided(self.lane, Use(account_id, "messages", amount, key))).allowed

    async def announce(self) -> int:
        """As a process does, each time another one."""
        clock = BusinessClock(self.clock_file)
        return await totals.announce(QuotaUnitOfWork(self.engine, Plans(), clock), clock)

    def advance(self, days: int) -> None:
        moved = self.clock_file.with_suffix(".new")
        moved.write_text(str(days * 86400))
        moved.rename(self.clock_file)

    async def told(self, account_id: str = "acct_a") -> list[tuple[int, bool]]:
        """Totals in the order in which they were announced, and whether they were final."""
        return [(message.used, message.final) for message in await self.messages(account_id)]

    async def messages(self, account_id: str) -> list[events_pb2.UsageRecorded]:
        return await recorded(self.engine, account_id)


async def recorded(engine: AsyncEngine, account_id: str = "acct_a") -> list[events_pb2.UsageRecorded]:
    found = await lanes.rows(
        engine,
        "SELECT data FROM outbox WHERE account_id = :id AND type = :type ORDER BY id",
        id=account_id,
        type=events_pb2.UsageRecorded.DESCRIPTOR.full_name,
    )
    return [events_pb2.UsageRecorded.FromString(data) for (data,) in found]  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def books(folder: Path, dsn: str) -> AsyncIterator[Books]:
    clock_file = folder / "clock"
    async with world.tables(dsn) as engine:
        await world.put(engine, sold(), sold("acct_b"))
        async with serving(engine, dsn, clock=BusinessClock(clock_file)) as lane:
            yield Books(engine, lane, clock_file)


async def test_a_total_is_announced_when_it_changed_and_not_otherwise(tmp_path: Path, database: str) -> None:
    async with books(tmp_path, database) as kept:
        assert await kept.announce() == 0
        await kept.use(3)
        await kept.use(4)
        assert [await kept.announce() for _ in range(3)] == [1, 0, 0]
        await kept.use(1)
        await kept.use(9, account_id="acct_b")
        assert [await kept.announce() for _ in range(2)] == [2, 0]
        assert await kept.told() == [(7, False), (8, False)]
        assert await kept.told("acct_b") == [(9, False)]
        [first, _] = await kept.messages("acct_a")
        assert first.period_start.ToDatetime(UTC) == ANCHOR
        assert ANCHOR + timedelta(days=28) <= first.period_end.ToDatetime(UTC) <= ANCHOR + timedelta(days=31)


async def test_a_period_without_a_successor_is_closed_once_and_a_later_use_does_not_close_it_again(
    tmp_path: Path, database: str
) -> None:
    async with books(tmp_path, database) as kept:
        await kept.use(3)
        await kept.announce()
        await kept.use(4)
        kept.advance(35)
        assert [await kept.announce() for _ in range(3)] == [1, 0, 0]
        assert await kept.told() == [(3, False), (7, True)]
        await kept.use(2)
        assert [await kept.announce() for _ in range(2)] == [1, 0]
        assert await kept.told() == [(3, False), (7, True), (2, False)]
        assert await lanes.rows(kept.engine, "SELECT terms::text FROM account WHERE id = 'acct_a'") == [("{}",)]
        kept.advance(70)
        await kept.announce()
        assert await kept.told() == [(3, False), (7, True), (2, False), (2, True)]


async def test_announcing_reads_a_plan_once_and_no_account_whose_plan_sells_nothing(
    tmp_path: Path, database: str
) -> None:
    async with books(tmp_path, database) as kept:
        await world.put(kept.engine, world.entitlements("acct_free", limit=None))
        for account_id in ("acct_a", "acct_b", "acct_free"):
            await kept.use(1, account_id=account_id)
        read: dict[str, int] = {"plans": 0, "accounts": 0}

        def note(_: object, __: object, statement: str, ___: object, ____: object, _____: object) -> None:
            read["plans"] += "SELECT id, data FROM plan" in statement
            read["accounts"] += "a.counters::text" in statement

        event.listen(kept.engine.sync_engine, "after_cursor_execute", note)
        clock, plans = BusinessClock(kept.clock_file), Plans()
        assert await totals.announce(QuotaUnitOfWork(kept.engine, plans, clock), clock) == 2
        assert read == {"plans": 1, "accounts": 1}
        await kept.use(1)
        assert await totals.announce(QuotaUnitOfWork(kept.engine, plans, clock), clock) == 1
        assert read == {"plans": 1, "accounts": 2}


@pytest.mark.parametrize("announced_before", [True, False])
async def test_use_of_the_last_seconds_before_the_plan_stops_selling_is_announced(
    tmp_path: Path, database: str, announced_before: bool
) -> None:
    async with books(tmp_path, database) as kept:
        await kept.use(3)
        if announced_before:
            await kept.announce()
        await kept.use(4)
        free = world.entitlements("acct_a", limit=None)
        free.version = 2
        await world.put(kept.engine, free)
        await kept.use(100)
        before = [(3, False)] if announced_before else []
        assert await kept.told() == [*before, (7, True)]  # by the use that came after it
        again = sold()
        again.version = 3
        await world.put(kept.engine, again)
        # Of a period that came back the announcer tells what it had: once.
        assert [await kept.announce() for _ in range(2)] == [1, 0]
        assert await kept.told() == [*before, (7, True), (7, False)]
        await kept.use(5)
        assert [await kept.announce() for _ in range(2)] == [1, 0]
        assert (await kept.told())[-1] == (12, False)
        late = sold()
        late.version = 4
        late.meters[0].ClearField("overage_unit_price")
        await kept.use(1)
        await world.put(kept.engine, late)
        assert [await kept.announce() for _ in range(2)] == [1, 0]
        assert (await kept.told())[-1] == (13, False)
        kept.advance(35)
        assert await kept.announce() == 1
        assert (await kept.told())[-1] == (13, True)


@pytest.mark.parametrize("announced_before", [True, False])
async def test_a_period_that_a_use_ended_is_closed_by_that_use_alone(
    tmp_path: Path, database: str, announced_before: bool
) -> None:
    async with books(tmp_path, database) as kept:
        await kept.use(3)
        if announced_before:
            await kept.announce()
        kept.advance(35)
        await kept.use(2)
        assert [await kept.announce() for _ in range(2)] == [1, 0]
        before = [(3, False)] if announced_before else []
        assert await kept.told() == [*before, (3, True), (2, False)]


async def test_a_use_between_the_last_announcement_and_the_end_is_in_the_final_total(
    tmp_path: Path, database: str
) -> None:
    async with books(tmp_path, database) as kept:
        await kept.use(3)  # never announced while its period ran
        kept.advance(35)
        assert await kept.announce() == 1
        assert await kept.told() == [(3, True)]
        await kept.use(1)
        await kept.announce()
        assert await kept.told() == [(3, True), (1, False)]


async def test_two_that_announce_at_once_announce_once(tmp_path: Path, database: str) -> None:
    async with books(tmp_path, database) as kept:
        for turn in range(1, 6):
            await kept.use(1)
            assert sum(await asyncio.gather(*(kept.announce() for _ in range(4)))) == 1
            assert await kept.told() == [(n, False) for n in range(1, turn + 1)]
        kept.advance(35)
        assert sum(await asyncio.gather(*(kept.announce() for _ in range(4)))) == 1


async def test_the_end_is_announced_once_though_a_use_and_an_announcer_come_to_it_together(
    tmp_path: Path, database: str
) -> None:
    async with books(tmp_path, database) as kept:
        async with serving(kept.engine, database, clock=BusinessClock(kept.clock_file)) as other:
            for month in range(1, 7):
                await kept.use(month)
                kept.advance(31 * month)
                use = Use("acct_a", "messages", 1)
                await asyncio.gather(kept.announce(), decided(other, use), kept.announce(), decided(kept.lane, use))
                await kept.announce()
        finals = [(each.period_start.seconds, each.used) for each in await kept.messages("acct_a") if each.final]
        assert len({start for start, _ in finals}) == len(finals) == 6
        assert [used for _, used in finals] == [1, 4, 5, 6, 7, 8]


async def test_what_was_taken_back_leaves_the_total_and_comes_again_with_new_use(tmp_path: Path, database: str) -> None:
    async with books(tmp_path, database) as kept:
        await kept.use(5, "k")
        await kept.announce()
        kept.advance(1)  # long after the grant
        assert isinstance(await one(kept.lane, Reverse("acct_a", "k")), Reversal)
        await kept.announce()
        assert (await kept.told())[-1] == (0, False)
        kept.advance(2)
        await kept.use(5)
        await kept.announce()
        assert (await kept.told())[-1] == (5, False)  # the same number as before, but not the same as last
        kept.advance(35)
        await kept.announce()
        assert (await kept.told())[-1] == (5, True)


async def test_work_that_failed_and_was_done_again_between_two_announcements_is_told(
    tmp_path: Path, database: str
) -> None:
    async with books(tmp_path, database) as kept:
        await kept.use(4, "k")
        await kept.announce()
        assert isinstance(await one(kept.lane, Reverse("acct_a", "k")), Reversal)
        await kept.use(4)
        await kept.announce()
        assert await kept.told() == [(4, False), (0, False), (4, False)]
        kept.advance(1)
        assert await kept.announce() <= 1  # once more, for decisions that were under way
        assert (await kept.told())[-1] == (4, False)
        kept.advance(2)
        assert await kept.announce() == 0


async def test_a_reversal_before_any_announcement_leaves_nothing_to_announce_but_zero(
    tmp_path: Path, database: str
) -> None:
    async with books(tmp_path, database) as kept:
        await kept.use(5, "k")
        await one(kept.lane, Reverse("acct_a", "k"))
        await kept.announce()
        assert {used for used, _ in await kept.told()} <= {0}


async def test_between_two_announcements_lies_the_time_they_are_given(tmp_path: Path, database: str) -> None:
    async with books(tmp_path, database) as kept:
        clock, every_s = BusinessClock(kept.clock_file), 0.3

        def new_uow() -> QuotaUnitOfWork:
            return QuotaUnitOfWork(kept.engine, Plans(), clock)

        began = time.monotonic()
        running = asyncio.create_task(totals.keep_announcing(new_uow, clock, every_s=every_s))
        while time.monotonic() - began < 1.5:
            await kept.use(1)
        asked = int((await lanes.totals(kept.engine))[0])
        async with asyncio.timeout(10):
            while (await kept.told() or [(0, False)])[-1][0] != asked:  # noqa: ASYNC110 - a question to another process
                await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert 2 <= len(await kept.told()) <= (time.monotonic() - began) / every_s + 1


# It commits three times: that it looks, its only page, and how far it came.
@pytest.mark.parametrize(
    ("place", "passes", "told"),
    [
        ("uow.committed", 0, []),
        ("uow.flushed", 1, []),
        ("uow.committed", 1, [(3, False)]),
        ("uow.flushed", 2, [(3, False)]),
        ("uow.committed", 2, [(3, False)]),
    ],
)
async def test_an_announcer_that_is_killed_half_way_loses_nothing_and_repeats_nothing(
    tmp_path: Path, database: str, place: str, passes: int, told: list[tuple[int, bool]]
) -> None:
    async with books(tmp_path, database) as kept:
        await kept.use(3)
        port = ports.reserve()
        (tmp_path / f"failpoints-{port}").mkdir()
        (tmp_path / f"failpoints-{port}" / place).write_text(str(passes))
        # It announces as soon as it has started.
        with world.process(tmp_path, database, port=port) as killed:
            assert await asyncio.to_thread(killed.child.wait, 30) == -signal.SIGKILL
        assert await kept.told() == told
        with world.process(tmp_path, database, port=port) as quota:
            async with world.client(quota.address), asyncio.timeout(20):
                while not await kept.told():  # noqa: ASYNC110 - a question to another process
                    await asyncio.sleep(0.02)
        await kept.announce()
        assert await kept.told() == [(3, False)]


async def test_the_more_totals_there_were_the_longer_until_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    async def announced(*_: object) -> int:
        begun.append(time.monotonic())
        return 200

    monkeypatch.setattr(totals, "announce", announced)
    clock = BusinessClock(tmp_path / "clock")
    running = asyncio.create_task(totals.keep_announcing(lambda: None, clock, every_s=0.01))  # type: ignore[arg-type,return-value]
    async with asyncio.timeout(20):
        while len(begun) < 3:  # noqa: ASYNC110 - time is what is awaited
            await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert all(later - earlier >= 200 * totals.EACH_S for earlier, later in itertools.pairwise(begun))


async def test_a_page_that_fails_keeps_none_of_those_before_it_back(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with books(tmp_path, database) as kept:
        for account_id in ("acct_a", "acct_b"):
            await kept.use(2, account_id=account_id)
        monkeypatch.setattr(totals, "PAGE", 1)
        to_event = totals.to_event

        def refuses(total: UsageRecorded) -> object:
            if total.account_id == "acct_b":
                raise ValueError("of this account nothing can be told")
            return to_event(total)

        with monkeypatch.context() as broken:
            broken.setattr(totals, "to_event", refuses)
            with pytest.raises(ValueError, match="nothing can be told"):
                await kept.announce()
        assert (await kept.told(), await kept.told("acct_b")) == ([(2, False)], [])
        assert [await kept.announce() for _ in range(2)] == [1, 0]
        assert (await kept.told(), await kept.told("acct_b")) == ([(2, False)], [(2, False)])
