"""Billing periods keep their anchor."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from local.stripe_sandbox.periods import next_end, step

_ANCHORS = st.integers(
    int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2040, 1, 1, tzinfo=UTC).timestamp())
)
_LATER = st.integers(0, 6 * 365 * 86400)
_INTERVALS = st.sampled_from(
    [("day", 1), ("day", 30), ("week", 1), ("week", 3), ("month", 1), ("month", 5), ("year", 1), ("year", 3)]
)


@given(_ANCHORS, _LATER, _INTERVALS)
def test_the_next_end_is_the_first_boundary_of_the_anchors_series(
    anchor: int, later: int, every: tuple[str, int]
) -> None:
    interval, count = every
    after = anchor + later
    end = next_end(anchor, after, interval, count)
    assert end > after
    k = 1
    while step(anchor, interval, k * count) <= after:
        k += 1
    assert end == step(anchor, interval, k * count)


@given(_ANCHORS, st.integers(1, 60))
def test_months_keep_the_anchors_day_or_take_the_months_last(anchor: int, months: int) -> None:
    start = datetime.fromtimestamp(anchor, UTC)
    end = datetime.fromtimestamp(step(anchor, "month", months), UTC)
    last = calendar.monthrange(end.year, end.month)[1]
    assert end.day == min(start.day, last)
    assert end.time() == start.time()
    assert (end.year - start.year) * 12 + end.month - start.month == months
