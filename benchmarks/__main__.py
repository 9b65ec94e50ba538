"""`make bench`: everything in one run, one table, and the same in `.tollway/bench.json`.

Each part builds what it measures (PostgreSQL and NATS of its own, fsync on) and takes it down. An aim that is missed
is printed as missed; the exit code says only whether the measuring worked.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks import gateway, latency, webhooks
from benchmarks.figures import Figure, show
from benchmarks.quota import report as quota_report
from benchmarks.quota import run as quota
from local.state import default_folder

P50_MS, P99_MS = 50.0, 250.0
BURST_P99_MS = 1000.0
RSS_MB = 120.0


def latency_figures(numbers: dict[str, Any]) -> list[Figure]:
    found = []
    for name, cells in numbers["scenarios"].items():
        events, added = name.rsplit("_", 1)
        what = f"{'one event' if events == 'one_event' else 'all of a checkout'}, Stripe + {added}"
        for percent, aim in ((50, P50_MS), (99, P99_MS)):
            beyond, raw = cells[f"beyond_p{percent}_ms"], cells[f"raw_p{percent}_ms"]
            measured = f"{beyond:.1f} ms beyond Stripe, {raw:.1f} ms raw"
            found.append(
                Figure(
                    "webhook → limit", f"p{percent}: {what}", measured, f"< {aim:.0f} ms beyond Stripe", beyond < aim
                )
            )
    for name, rss in numbers["rss_mb"].items():
        found.append(Figure("memory", f"{name}, idle after that load", f"{rss} MB", f"< {RSS_MB:.0f} MB", rss < RSS_MB))
    return found


def webhook_figures(numbers: dict[str, Any]) -> list[Figure]:
    what, p99 = f"{numbers['count']:,} webhooks, {numbers['in_flight']} at once", numbers["p99_ms"]
    alone = f"{numbers['ratio']:.2f} of verify + insert alone ({numbers['bare_per_second']:,}/s)"
    part, limit = "webhooks", f"< {BURST_P99_MS:.0f} ms"
    return [
        Figure(part, f"{what}: answered", f"{numbers['per_second']:,}/s, {alone}"),
        Figure(part, f"{what}: p99 of the answers", f"{p99:.0f} ms", limit, p99 < BURST_P99_MS),
        Figure(
            part,
            f"{what}: all applied",
            f"after {numbers['applied_s']:.1f} s, {numbers['calls_to_stripe']} calls to Stripe",
        ),
    ]


def gateway_figures(numbers: dict[str, Any]) -> list[Figure]:
    use = next(cells for name, cells in numbers["scenarios"].items() if "usage" in name)
    measured = f"{use['per_second']:,}/s, p99 {use['p99_ms']:.1f} ms, {use['cpu_us']:.0f} µs CPU"
    return [
        Figure("gateway", "POST /v1/usage, its backends answering at once", measured),
        Figure(
            "gateway", "of that, beyond a bare ASGI answer with the same calls", f"{numbers['own_cpu_us_per_use']} µs"
        ),
    ]


def main() -> int:
    console = Console(stderr=True)
    parts: dict[str, Any] = {}
    figures: list[Figure] = []
    loads: dict[str, float] = {}
    for name, measure, read in (
        ("quota", quota.measure, quota_report.figures),
        ("latency", latency.measure, latency_figures),
        ("webhooks", webhooks.measure, webhook_figures),
        ("gateway", gateway.measure, gateway_figures),
    ):
        loads[name] = round(os.getloadavg()[0], 1)
        console.print(f"measuring {name} (load {loads[name]} before)")
        parts[name] = measure()
        figures += read(parts[name])
    facts = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}",
        "load_before": loads,
    }
    show(figures, "make bench", f"{facts['machine']}; load before each part: {facts['load_before']}")
    write(default_folder() / "bench.json", figures, facts, parts)
    return 0


def write(path: Path, figures: list[Figure], facts: dict[str, Any], parts: dict[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(json.dumps(facts | {"figures": [asdict(figure) for figure in figures]} | parts, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(main())
