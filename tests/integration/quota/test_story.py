"""The plain model beside two lanes on one database, through random plans, clocks, retries, releases and expiries."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.clock import BusinessClock
from services.quota.domain import (
    Acquire,
    AdjustAllowance,
    Command,
    KillSwitch,
    Period,
    Release,
    Renew,
    Reverse,
    SetCap,
    Settle,
    Use,
)
from services.quota.events import to_plan, to_snapshot
from services.quota.lane import Lane
from tests.contract.quota.comparing import timeless
from tests.contract.quota.model import Model, ModelAccount
from tests.contract.quota.test_commands import guarded
from tests.integration.quota import lanes, world
from tollway.billing.v1 import entitlement_pb2

T = TypeVar("T")
HOUR = timedelta(hours=1)
# No sum of them comes within minutes of how long leases last, so that model and lane, which look at the clock one
# after the other, never see the same lease on two sides of its end.
JUMPS = [timedelta(minutes=26), timedelta(hours=7), timedelta(days=9), timedelta(days=20)]
KEYS = ["", "k1", "k2", "k3", "k4"]
METERS = st.sampled_from(["messages", "messages", "calls"])
UNITS = st.integers(0, 6)


@dataclass
class Bench:
    """What all stories stand on: the database, two lanes, and a clock that only moves on."""

    runner: asyncio.Runner
    engine: AsyncEngine
    lanes: list[Lane]
    clock_file: Path
    offset: timedelta = timedelta(0)
    stories: int = 0
    granted: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, jump: timedelta) -> None:
        self.offset += jump
        moved = self.clock_file.with_suffix(".new")
        moved.write_text(str(int(self.offset.total_seconds())))
        moved.rename(self.clock_file)


def plan(
    account_id: str, version: int, quota: int | None, slots: int | None, burst: int | None, period: int
) -> entitlement_pb2.Entitlements:
    message = guarded(account_id, quota=quota, slots=slots)
    message.version = version
    message.limits[0].period = period  # type: ignore[assignment]
    if burst is not None:
        message.limits.extend(world.entitlements(account_id, burst=burst, per_key=burst - 2).limits[1:])
    return message


plans = st.fixed_dictionaries(
    {
        "quota": st.sampled_from([None, 10, 25, 60]),
        "slots": st.sampled_from([None, 0, 2, 4]),
        "burst": st.sampled_from([None, None, 12]),
        "period": st.sampled_from(
            [entitlement_pb2.PERIOD_MONTH, entitlement_pb2.PERIOD_BILLING, entitlement_pb2.PERIOD_LIFETIME]
        ),
    }
)


class Story(RuleBasedStateMachine):
    bench: Bench

    @initialize(of=plans, anchored=st.sampled_from(["", "", "month", "year"]), day=st.integers(1, 40))
    def begin(self, of: dict[str, Any], anchored: str, day: int) -> None:
        self.bench.stories += 1
        self.id, self.version, self.interval, self.leases = f"acct_{self.bench.stories}", 0, anchored, 0
        self.commands: list[Command] = []
        # Neither near to now nor to any jump from now.
        self.anchor = (self.bench.now() - timedelta(days=day, hours=5, minutes=11)).replace(microsecond=0)
        account = ModelAccount(self.id, to_plan(to_snapshot(plan(self.id, 1, **of)).plan))
        if anchored:
            account.anchor, account.interval = self.anchor, anchored
        self.model = Model(account)
        self.change_plan(of)

    def change_plan(self, of: dict[str, Any]) -> None:
        self.version += 1
        message = plan(self.id, self.version, **of)
        if self.interval:
            message.period_anchor.FromDatetime(self.anchor)
            message.period_interval = self.interval
        account = self.model.accounts[self.id]
        account.plan, account.version = to_plan(to_snapshot(message).plan), self.version
        assert self.bench.run(world.put(self.bench.engine, message)) == 1

    def decide(self, lane: int, *commands: Command) -> None:
        got = self.bench.run(_decide(self.bench.lanes[lane], commands))
        at, switches = self.bench.now(), self.thrown
        expected = [self.model.decide(replace(command), at, switches) for command in commands]
        assert [timeless(each) for each in got] == [timeless(each) for each in expected]
        self.commands += [command for command in commands if not isinstance(command, Acquire) or command.key]
        self.bench.granted += lanes.allowed(got)
        self.bench.seen.update(type(command).__name__ for command in commands)

    thrown: frozenset[str] = frozenset()

    @rule(lane=st.integers(0, 1), meter=METERS, amount=st.integers(1, 6), key=st.sampled_from(KEYS), dry=st.booleans())
    def use(self, lane: int, meter: str, amount: int, key: str, dry: bool) -> None:
        self.decide(lane, Use(self.id, meter, amount, key, dry and amount > 3, key_id=f"key_{amount % 2}"))

    @rule(
        lane=st.integers(0, 1),
        meter=METERS,
        amount=st.integers(0, 2),
        reserve=UNITS,
        hours=st.sampled_from([1, 10]),
        key=st.sampled_from(KEYS),
    )
    def acquire(self, lane: int, meter: str, amount: int, reserve: int, hours: int, key: str) -> None:
        self.leases += 1
        name = f"lease_{self.leases}"
        self.decide(lane, Acquire(self.id, meter, amount, reserve, name, hours * HOUR, key))

    @rule(
        lane=st.integers(0, 1),
        back=st.integers(0, 4),
        what=st.sampled_from(["renew", "settle", "release"]),
        units=UNITS,
    )
    def of_lease(self, lane: int, back: int, what: str, units: int) -> None:
        name = f"lease_{max(1, self.leases - back)}"
        command = {
            "renew": Renew(self.id, name, 10 * HOUR),
            "settle": Settle(self.id, name, units),
            "release": Release(self.id, name),
        }[what]
        self.decide(lane, command)  # type: ignore[arg-type]

    @rule(lane=st.integers(0, 1), key=st.sampled_from(KEYS[1:]))
    def reverse(self, lane: int, key: str) -> None:
        self.decide(lane, Reverse(self.id, key))

    @rule(lane=st.integers(0, 1), limit=st.sampled_from([None, 0, 5, 12, 30]), stops=st.booleans())
    def set_cap(self, lane: int, limit: int | None, stops: bool) -> None:
        self.decide(lane, SetCap(self.id, "messages", limit, auto_stop=stops))

    @rule(lane=st.integers(0, 1), money=st.sampled_from(["0", "1", "2.5"]))
    def set_cap_in_money(self, lane: int, money: str) -> None:
        self.decide(lane, SetCap(self.id, "messages", None, money))

    @rule(lane=st.integers(0, 1), change=st.sampled_from(["set", "add", "remove"]), key=st.sampled_from(KEYS))
    def adjust(self, lane: int, change: Any, key: str) -> None:
        self.decide(lane, AdjustAllowance(self.id, "models", change, 2, key))

    @rule(lane=st.integers(0, 1), back=st.lists(st.integers(0, 12), min_size=1, max_size=5))
    def repeat(self, lane: int, back: list[int]) -> None:
        """What was asked before, in one batch, of whichever lane."""
        known = [self.commands[-1 - each] for each in back if each < len(self.commands)]
        if known:
            self.decide(lane, *known)

    @rule(of=plans)
    def billing_sends_a_plan(self, of: dict[str, Any]) -> None:
        self.change_plan(of)

    @rule(jump=st.sampled_from(JUMPS))
    def time_passes(self, jump: timedelta) -> None:
        self.bench.advance(jump)

    @rule(meter=st.sampled_from(["", "calls"]))
    def an_operator_throws_or_releases(self, meter: str) -> None:
        self.turn(meter, meter not in self.thrown)

    def turn(self, meter: str, enabled: bool) -> None:
        async def put() -> None:
            async with world.unit_of_work(self.bench.engine) as uow:
                await uow.switches.put(KillSwitch(meter, enabled, "test", datetime.now(UTC)))
                await uow.commit()

        self.bench.run(put())
        self.thrown = self.thrown | {meter} if enabled else self.thrown - {meter}

    @invariant()
    def counter_ledger_and_model_agree(self) -> None:
        told = self.model.accounts[self.id].counted({"messages", "calls"}, Period.LIFETIME, self.bench.now())
        assert self.bench.run(lanes.totals(self.bench.engine, self.id)) == (told, told)

    def teardown(self) -> None:
        for meter in list(self.thrown):
            self.turn(meter, False)


async def _decide(lane: Lane, commands: tuple[Command, ...]) -> list[Any]:
    return await lane.decide(commands, 20)


def test_two_lanes_and_the_model_tell_the_same_story(tmp_path: Path, database: str) -> None:
    with asyncio.Runner() as runner:
        stack, clock_file = contextlib.AsyncExitStack(), tmp_path / "clock"

        async def prepare() -> Bench:
            engine = await stack.enter_async_context(world.tables(database))
            opened = [
                await stack.enter_async_context(lanes.serving(engine, database, clock=BusinessClock(clock_file)))
                for _ in range(2)
            ]
            return Bench(runner, engine, opened, clock_file)

        try:
            bench = runner.run(prepare())
            run_state_machine_as_test(
                type("Told", (Story,), {"bench": bench}),
                settings=settings(
                    max_examples=35, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
                ),
            )
        finally:
            runner.run(stack.aclose())
    print(f"{bench.stories} stories, {bench.granted} grants, {dict(bench.seen)}")
    assert bench.granted >= 10, "too little was granted to prove anything"
    assert bench.seen.keys() >= {"Use", "Acquire", "Renew", "Settle", "Release", "Reverse", "SetCap"}
