"""How long the lane should wait for more to come: `python -m benchmarks.quota.lingering [MS …]`.

One replica for each setting of TOLLWAY_QUOTA_LINGER_MS, with a database of its own, asked in turns by both kinds of
caller at 1, 16 and 64 in flight.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from contextlib import AsyncExitStack

import uvloop

from benchmarks import common
from benchmarks.quota import plans
from benchmarks.quota.callers import Caller, Light, Load, aio
from benchmarks.quota.scenarios import FEW, IN_FLIGHT
from benchmarks.quota.world import open_database, serve

SETTINGS_MS = (0, 2, 5, 10)
KINDS = ("full_spread", "full_hot")
SECONDS, ROUNDS = 1.0, 3


async def _measure(settings: list[int]) -> str:
    rates: dict[tuple[str, str, int, int], list[float]] = defaultdict(list)
    p50s: dict[tuple[str, str, int, int], list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        dsns = stack.enter_context(common.postgres(*(f"bench_{each}" for each in settings)))
        ports = {}
        for each, dsn in zip(settings, dsns, strict=True):
            await plans.load(dsn, (await open_database(stack, dsn)).connection)
            (ports[each],) = serve(stack, dsn, TOLLWAY_QUOTA_LINGER_MS=str(each)).ports
            await common.listening(ports[each])
        callers: list[Caller] = [await stack.enter_async_context(aio()), Light()]
        for _ in range(ROUNDS):
            for who in callers:
                for kind in KINDS:
                    for width in (IN_FLIGHT, *FEW):
                        for each in settings:
                            result = await who.run(Load((ports[each],), kind, width, SECONDS))
                            rates[who.name, kind, width, each].append(result.rate)
                            p50s[who.name, kind, width, each].append(result.percentile_ms(50))
    rows = [("decisions/s (p50 ms)", "in flight", *(f"{each} ms" for each in settings))]
    for caller, kind, width in dict.fromkeys(key[:3] for key in rates):
        cells = [(caller, kind, width, each) for each in settings]
        shown = [f"{statistics.median(rates[cell]):,.0f} ({statistics.median(p50s[cell]):.1f})" for cell in cells]
        rows.append((f"{caller}.{kind}", str(width), *shown))
    return common.table("TOLLWAY_QUOTA_LINGER_MS", rows)


def main() -> None:
    settings = [int(each) for each in sys.argv[1:]] or list(SETTINGS_MS)
    print(uvloop.run(_measure(settings)))


if __name__ == "__main__":
    main()
