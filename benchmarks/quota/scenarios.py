"""What is measured, each under a name: `caller.what`, and `caller.what@in flight` where that is not 64."""

from __future__ import annotations

import asyncio
import fnmatch
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks import common, http1
from benchmarks.quota import envoy
from benchmarks.quota.callers import WARM_S, Caller, Load
from benchmarks.quota.payloads import ACCOUNTS, Payloads
from benchmarks.quota.servers import UPDATE
from benchmarks.quota.world import Database, Target, World

IN_FLIGHT = 64
BATCHES_IN_FLIGHT = 16
FEW = (1, 16)

# What → target and kind of payload.
UNARY = {
    "null": ("null", "simple_spread"),
    "null_with_boundary": ("kit", "simple_spread"),
    "naive": ("naive", "simple_spread"),
    "simple_spread": ("quota", "simple_spread"),
    "simple_hot": ("quota", "simple_hot"),
    "without_key": ("quota", "without_key"),
    "manashiki_spread": ("quota", "manashiki_spread"),
    "manashiki_hot": ("quota", "manashiki_hot"),
    "full_spread": ("quota", "full_spread"),
    "full_hot": ("quota", "full_hot"),
    "refused_by_quota": ("quota", "refused_by_quota"),
    "refused_by_rate": ("quota", "refused_by_rate"),
    "refused_by_switch": ("quota", "refused_by_switch"),
    "acquire_release": ("quota", "acquire_release"),
    "replay": ("quota", "replay"),
    "full_spread_million": ("many", "many_spread"),
    "two_replicas_spread": ("two", "two_spread"),
    "two_replicas_hot": ("two", "two_hot"),
}
BATCHES = {
    f"batch_{plan}_{where}": ("quota", f"{plan}_batch_{where}")
    for plan in ("simple", "manashiki", "full")
    for where in ("spread", "hot")
}
# The accounts that uses are spread over, by the kind of payload. Of a million, memory holds a few.
KNOWN = {
    "simple_spread": "acct_",
    "without_key": "acct_",
    "simple_batch_spread": "acct_",
    "manashiki_spread": "mana_",
    "manashiki_batch_spread": "mana_",
    "full_spread": "full_",
    "full_batch_spread": "full_",
    "acquire_release": "full_",
    "refused_by_switch": "full_",
    "two_spread": "two_",
}
AT_FEW = ("null", "full_spread", "full_hot")


@dataclass
class Round:
    """One turn of a scenario, and what the servers did for it."""

    result: common.Result
    cpu_s: float
    statements: float
    commits: int
    null: float = 0.0  # empty calls a second just before
    few: float = 0.0  # decisions a second on few accounts just before


@dataclass
class Scenario:
    name: str
    run: Callable[[float], Any]  # seconds → an awaitable Result
    in_flight: int
    target: Target | None = None
    null: str = ""  # that of empty calls, which it is compared with
    naive: str = ""
    few: str = ""  # that of few accounts, where many are compared with them
    items: int = 1  # decisions per call
    granted: int = 0  # units per call that was answered well
    prepare: Callable[[], Any] | None = None  # an awaitable; not measured
    rounds: list[Round] = field(default_factory=list)

    async def measure(self, seconds: float, null: Scenario | None = None, few: Scenario | None = None) -> Round:
        """`null` and `few` are measured for half as long just before: the machine's speed varies within a round."""
        empty = (await null.run(seconds / 2)).rate if null is not None and null is not self else 0.0
        of_few = (await few.load(seconds / 2)).rate * few.items if few is not None else 0.0
        if self.prepare is not None:
            await self.prepare()
        target, database = self.target, self.database
        cpu_s = target.cpu_s() if target is not None else 0.0
        statements = target.statements() if target is not None else 0.0
        commits = await database.commits() if database is not None else 0
        done = Round(await self._count(seconds), 0.0, 0.0, 0, empty, of_few)
        if target is not None:
            done.cpu_s, done.statements = target.cpu_s() - cpu_s, target.statements() - statements
        if database is not None:
            done.commits = await database.commits() - commits
        self.rounds.append(done)
        return done

    @property
    def database(self) -> Database | None:
        return self.target.database if self.target is not None else None

    async def load(self, seconds: float) -> common.Result:
        """For what it is compared with: counted in no round of its own."""
        if self.prepare is not None:
            await self.prepare()
        return await self._count(seconds)

    async def _count(self, seconds: float) -> common.Result:
        result = await self.run(seconds)
        if self.database is not None:
            self.database.told += self.granted * (result.answered - result.failures)
            self.database.unsure += self.granted * result.failures
        return result

    def rates(self) -> list[float]:
        """Decisions per second, round by round."""
        return [each.result.rate * self.items for each in self.rounds]

    def of_null(self) -> list[float]:
        """Decisions for each empty call just before, round by round."""
        return [rate / each.null for rate, each in zip(self.rates(), self.rounds, strict=True) if each.null]

    def of_few(self) -> list[float]:
        """Decisions for each on few accounts just before, round by round."""
        return [rate / each.few for rate, each in zip(self.rates(), self.rounds, strict=True) if each.few]


def build(world: World, callers: list[Caller]) -> list[Scenario]:
    """All of them, those that others are compared with first."""
    kinds = Payloads().kinds
    found = []
    for caller in callers:
        for what, (target, kind) in (UNARY | BATCHES).items():
            if target not in world.targets:
                continue
            widths = (IN_FLIGHT, *(FEW if what in AT_FEW else ())) if what in UNARY else (BATCHES_IN_FLIGHT,)
            for width in widths:
                suffix = "" if width == widths[0] else f"@{width}"
                found.append(
                    Scenario(
                        f"{caller.name}.{what}{suffix}",
                        _calls(caller, world.targets[target], kind, width),
                        width,
                        world.targets[target],
                        f"{caller.name}.null{suffix}",
                        f"{caller.name}.naive",
                        f"{caller.name}.full_spread" if what == "full_spread_million" else "",
                        kinds[kind].items,
                        kinds[kind].granted,
                        _knowing(world.targets[target], KNOWN.get(kind)),
                    )
                )
    found.append(Scenario("bare.naive", lambda seconds: _naive_bare(world.naive_pool, seconds), IN_FLIGHT))
    for name in ("null", "quota"):
        public = world.targets[f"envoy_{name}"]
        run = _through_envoy(public.ports[0], [key.secret for key in world.keys])
        made = Scenario(f"envoy.{name}", run, IN_FLIGHT, public, "envoy.null")
        if name == "quota":
            made.granted, made.prepare = 1, partial(_know_all, world)
        found.append(made)
    return found


def chosen(scenarios: list[Scenario], only: str) -> list[Scenario]:
    """Those whose name has `only` in it, or matches it as a pattern, with what they are compared with."""
    wanted = [each for each in scenarios if only in each.name or fnmatch.fnmatch(each.name, only)]
    names = {name for each in wanted for name in (each.name, each.null, each.naive, each.few)}
    return [each for each in scenarios if each.name in names]


async def _know_all(world: World) -> None:
    quota = world.targets["quota"]
    await quota.know("envoy_")
    await quota.know_keys(world.keys)


def _knowing(target: Target, prefix: str | None) -> Callable[[], Any] | None:
    return partial(target.know, prefix) if prefix is not None and target.database is not None else None


def _calls(caller: Caller, target: Target, kind: str, width: int) -> Callable[[float], Any]:
    return lambda seconds: caller.run(Load(target.ports, kind, width, seconds))


def _through_envoy(port: int, secrets: list[str]) -> Callable[[float], Any]:
    requests = envoy.requests(secrets)
    return lambda seconds: http1.load(port, requests, in_flight=IN_FLIGHT, seconds=seconds, warm_s=WARM_S)


async def _naive_bare(pool: Any, seconds: float) -> common.Result:
    """The UPDATE alone, without any RPC: what this PostgreSQL and driver give at 64 in flight."""
    latencies: list[float] = []
    spread = random.Random(2)
    began = time.perf_counter()

    async def caller() -> None:
        while (now := time.perf_counter()) < began + seconds:
            await pool.fetchrow(UPDATE, f"acct_{spread.randrange(ACCOUNTS):07d}", "messages", 1)
            latencies.append(time.perf_counter() - now)

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return common.Result(len(latencies), time.perf_counter() - began, 0, latencies, answered=len(latencies))


def by_name(scenarios: list[Scenario]) -> Mapping[str, Scenario]:
    return {each.name: each for each in scenarios}
