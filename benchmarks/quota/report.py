"""The figures with their aims, and all numbers as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import common
from benchmarks.figures import Figure

# What the system aims at on two cores, at 64 in flight.
LEAST_OF_NULL = 0.85
_TITLES = {
    "null": "empty RPC",
    "naive": "one UPDATE per request",
    "simple_spread": "Consume, one quota, 10,000 accounts",
    "simple_hot": "Consume, one quota, one account",
    "manashiki_spread": "Consume, manashiki's limits, 10,000 accounts",
    "manashiki_hot": "Consume, manashiki's limits, one account",
    "full_spread": "Consume, every kind of limit, 10,000 accounts",
    "full_hot": "Consume, every kind of limit, one account",
    "refused_by_quota": "refused by a quota",
    "refused_by_rate": "refused by a rate",
    "refused_by_switch": "refused by a kill switch",
    "acquire_release": "Acquire + Release",
    "replay": "a key that comes back",
    "full_spread_million": "Consume, every kind of limit, 1,000,000 accounts",
    "two_replicas_spread": "two replicas, 10,000 accounts",
    "two_replicas_hot": "two replicas, one account",
    "batch_simple_spread": "batch of 100, one quota, 10,000 accounts",
    "batch_simple_hot": "batch of 100, one quota, one account",
    "batch_manashiki_spread": "batch of 100, manashiki's limits, 10,000 accounts",
    "batch_manashiki_hot": "batch of 100, manashiki's limits, one account",
    "batch_full_spread": "batch of 100, every kind of limit, 10,000 accounts",
    "batch_full_hot": "batch of 100, every kind of limit, one account",
}
# What → against which ratio, and at least how much of it. Without: shown for comparison.
_AIMS: dict[str, tuple[str, float]] = {
    "simple_spread": ("of_null", LEAST_OF_NULL),
    "simple_hot": ("of_null", LEAST_OF_NULL),
    "manashiki_spread": ("of_null", LEAST_OF_NULL),
    "manashiki_hot": ("of_null", LEAST_OF_NULL),
    "full_spread": ("of_null", LEAST_OF_NULL),
    "full_hot": ("of_null", LEAST_OF_NULL),
    "refused_by_quota": ("of_null", LEAST_OF_NULL),
    "refused_by_rate": ("of_null", LEAST_OF_NULL),
    "refused_by_switch": ("of_null", LEAST_OF_NULL),
    "full_spread_million": ("of_few_accounts", 0.85),
    "batch_simple_spread": ("of_naive", 8.0),
    "batch_manashiki_spread": ("of_naive", 5.0),
    "batch_manashiki_hot": ("of_naive", 15.0),
    "batch_full_spread": ("of_naive", 5.0),
    "batch_full_hot": ("of_naive", 15.0),
}
_AGAINST = {
    "of_null": "{:.2f} of the empty RPC",
    "of_naive": "{:.1f} × one UPDATE per request",
    "of_few_accounts": "{:.2f} of 10,000 accounts",
}
_CALLERS = {"aio": "grpc.aio client", "light": "light client", "bare": "no RPC", "envoy": "Envoy"}


def figures(numbers: dict[str, Any]) -> list[Figure]:
    """One line for each scenario, with the aim where there is one."""
    return list(_lines(numbers["scenarios"]))


def _lines(scenarios: dict[str, Any]) -> Iterator[Figure]:
    for name, cells in scenarios.items():
        caller, _, what = name.partition(".")
        plain, _, few = what.partition("@")
        part = f"quota, {_CALLERS[caller]}"
        title = _TITLES.get(plain, plain.replace("_", " "))
        words = _AGAINST
        if caller == "envoy":
            title = "in front of an empty rate limit service" if what == "null" else "in front of quota"
            words = _AGAINST | {"of_null": "{:.2f} of the empty service"}
        said = [f"{cells['per_second']:,}/s", f"p50 {cells['p50_ms']:.1f}, p99 {cells['p99_ms']:.1f} ms"]
        against, least = _AIMS.get(what, ("", 0.0))
        if name == "envoy.quota":
            against, least = "of_null", LEAST_OF_NULL
        if not against and cells["of_null"] is not None and plain != "null":
            against = "of_naive" if "batch" in plain else "of_null"
        if against and (value := cells.get(against)) is not None:
            said.append(words[against].format(value))
        if cells["statements_per_decision"]:
            statements, commits = cells["statements_per_decision"], cells["commits_per_decision"]
            said.append(f"{statements:.3f} statements, {commits:.3f} commits each")
        if cells["failures"]:
            said.append(f"{cells['failures']} FAILED")
        value = cells.get(against) if least else None
        aim = "≥ " + words[against].format(least) if least else ""
        yield Figure(
            part,
            title + (f", {few} in flight" if few else ""),
            ", ".join(said),
            aim,
            None if value is None else value >= least and not cells["failures"],
        )


def report(numbers: dict[str, Any]) -> str:
    """Every number of the scenarios, one line each."""
    rows = [("quota", "decisions/s", "p50 ms", "p99 ms", "× null", "× naive", "µs", "statements", "commits", "failed")]
    for name, cells in numbers["scenarios"].items():
        rows.append(
            (
                name,
                f"{cells['per_second']:,}",
                f"{cells['p50_ms']:.2f}",
                f"{cells['p99_ms']:.2f}",
                _ratio(cells["of_null"]),
                _ratio(cells["of_naive"]),
                f"{cells['server_cpu_us']:.0f}",
                f"{cells['statements_per_decision']:.4f}",
                f"{cells['commits_per_decision']:.4f}",
                str(cells["failures"]),
            )
        )
    title = (
        f"{numbers['in_flight']} in flight, {numbers['accounts']:,} accounts, batches of {numbers['batch']} "
        f"({numbers['batches_in_flight']} in flight), {numbers['cores']} cores; µs: the server's processor time"
    )
    tail = f"\n{numbers['granted']:,} units = ledger = counters = told; RSS {numbers['rss_mb']} MB"
    return common.table(title, rows) + tail


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
