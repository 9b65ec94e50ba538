"""The measurement: every scenario in turns, then the sums."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import psutil
import uvloop

from benchmarks.quota.callers import Caller, Light, aio
from benchmarks.quota.payloads import ACCOUNTS, BATCH, MANY
from benchmarks.quota.scenarios import BATCHES_IN_FLIGHT, IN_FLIGHT, Scenario, build, by_name, chosen
from benchmarks.quota.world import World, running

SECONDS, ROUNDS = 1.3, 3


def measure(seconds: float = SECONDS, rounds: int = ROUNDS, only: str = "") -> dict[str, Any]:
    """Rates per second, latencies in milliseconds, and ratios, by scenario; see `summary`."""
    return uvloop.run(_measure(seconds, rounds, only))


async def _measure(seconds: float, rounds: int, only: str) -> dict[str, Any]:
    _say("preparing databases, servers and Envoys")
    began = time.perf_counter()
    async with running(many=_needs_many(only)) as world, aio() as client:
        _say(f"prepared in {time.perf_counter() - began:.0f} s")
        callers: list[Caller] = [client, Light()]
        scenarios = chosen(build(world, callers), only)
        if not scenarios:
            raise SystemExit(f"no scenario is called {only!r}")
        named = by_name(scenarios)
        for number in range(rounds):
            for place, scenario in enumerate(scenarios):
                done = await scenario.measure(seconds, named.get(scenario.null), named.get(scenario.few))
                rate = done.result.rate * scenario.items
                where = f"round {number + 1}/{rounds}, {place + 1}/{len(scenarios)}"
                _say(f"{where}: {scenario.name} {rate:,.0f}/s, {done.result.failures} failed")
        rss = {name: _rss_mb(world, name) for name in ("quota", "many") if name in world.targets}
        granted = sum([await database.check() for database in world.databases()])
    return {
        "in_flight": IN_FLIGHT,
        "batches_in_flight": BATCHES_IN_FLIGHT,
        "batch": BATCH,
        "accounts": ACCOUNTS,
        "many_accounts": MANY,
        "rounds": rounds,
        "seconds_per_round": seconds,
        "cores": psutil.cpu_count(),
        "granted": granted,
        "rss_mb": rss,
        "scenarios": summary(scenarios),
    }


def _needs_many(only: str) -> bool:
    return not only or "million" in only or "*" in only


def _rss_mb(world: World, name: str) -> float:
    return round(max(each.memory_info().rss for each in world.targets[name].processes) / 2**20, 1)


def summary(scenarios: list[Scenario]) -> dict[str, Any]:
    """Medians of the rounds. A ratio is taken round by round, those to the empty RPC and to few accounts with one
    measured just before: both sides saw the same machine.
    """
    named = by_name(scenarios)
    shown = {}
    for each in scenarios:
        results = [one.result for one in each.rounds]
        decisions = sum(result.answered for result in results) * each.items
        shown[each.name] = {
            "in_flight": each.in_flight,
            "per_second": round(statistics.median(each.rates())),
            "p50_ms": round(statistics.median(result.percentile_ms(50) for result in results), 2),
            "p99_ms": round(statistics.median(result.percentile_ms(99) for result in results), 2),
            "of_null": _median(each.of_null()),
            "of_naive": ratio(each, named.get(each.naive)),
            # Processor time is what is left to compare when others use the machine too.
            "server_cpu_us": round(sum(one.cpu_s for one in each.rounds) / max(1, decisions) * 1e6, 1),
            "statements_per_decision": round(sum(one.statements for one in each.rounds) / max(1, decisions), 4),
            "commits_per_decision": round(sum(one.commits for one in each.rounds) / max(1, decisions), 4),
            "failures": sum(result.failures for result in results),
        }
        if each.few:
            shown[each.name]["of_few_accounts"] = _median(each.of_few())
    return shown


def ratio(each: Scenario, other: Scenario | None) -> float | None:
    if other is None:
        return None
    return _median([mine / theirs for mine, theirs in zip(each.rates(), other.rates(), strict=True) if theirs])


def _median(ratios: list[float]) -> float | None:
    return round(statistics.median(ratios), 2) if ratios else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
