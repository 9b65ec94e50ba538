"""`python -m benchmarks.quota [--only NAME] [--seconds S] [--rounds N]`."""

from __future__ import annotations

import argparse

from benchmarks.figures import show
from benchmarks.quota.report import figures, report
from benchmarks.quota.run import ROUNDS, SECONDS, measure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quota", description="What a durable decision costs.")
    parser.add_argument("--only", default="", help="scenarios with this in their name, or a pattern: 'aio.full_*'")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each scenario in each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    numbers = measure(given.seconds, given.rounds, given.only)
    print(report(numbers))
    show(figures(numbers), "quota", f"{numbers['rounds']} rounds of {numbers['seconds_per_round']} s")


if __name__ == "__main__":
    main()
