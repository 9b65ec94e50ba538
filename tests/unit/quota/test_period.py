"""Periods: exact to the second at month ends, in leap years and for anchors on the 29th to 31st."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain import billing_span, month_span

instants = st.integers(1_577_836_800, 2_840_140_800).map(lambda second: datetime.fromtimestamp(second, UTC))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@given(instants)
def test_months_follow_each_other_without_gap_or_overlap(at: datetime) -> None:
    span = month_span(at)
    assert span.end is not None
    assert span.start <= at.timestamp() < span.end
    assert month_span(datetime.fromtimestamp(span.end, UTC)).start == span.end
    assert month_span(datetime.fromtimestamp(span.end - 1, UTC)) == span
    assert datetime.fromtimestamp(span.start, UTC).day == 1


@given(instants, instants, st.sampled_from(["month", "year"]))
def test_billing_periods_follow_each_other_and_keep_the_anchors_day(
    anchor: datetime, at: datetime, interval: str
) -> None:
    span = billing_span(anchor, interval, at)
    assert span.end is not None
    assert span.start <= at.timestamp() < span.end
    assert billing_span(anchor, interval, datetime.fromtimestamp(span.end, UTC)).start == span.end
    assert billing_span(anchor, interval, datetime.fromtimestamp(span.start, UTC)) == span
    start = datetime.fromtimestamp(span.start, UTC)
    next_day = start + timedelta(days=1)
    assert start.time() == anchor.time()
    assert start.day == anchor.day or (start.day < anchor.day and next_day.day == 1)  # the month's last


@pytest.mark.parametrize(
    ("anchor", "interval", "at", "start", "end"),
    [
        ("2026-01-31T10:00:00", "month", "2026-02-28T09:59:59", "2026-01-31T10:00:00", "2026-02-28T10:00:00"),
        ("2026-01-31T10:00:00", "month", "2026-02-28T10:00:00", "2026-02-28T10:00:00", "2026-03-31T10:00:00"),
        ("2026-01-31T10:00:00", "month", "2028-02-29T10:00:00", "2028-02-29T10:00:00", "2028-03-31T10:00:00"),
        ("2026-01-30T00:00:00", "month", "2026-04-29T23:59:59", "2026-03-30T00:00:00", "2026-04-30T00:00:00"),
        ("2028-02-29T12:00:00", "year", "2029-02-28T12:00:00", "2029-02-28T12:00:00", "2030-02-28T12:00:00"),
        ("2028-02-29T12:00:00", "year", "2032-02-29T11:59:59", "2031-02-28T12:00:00", "2032-02-29T12:00:00"),
        ("2026-12-15T00:00:00", "month", "2026-11-22T00:00:00", "2026-11-15T00:00:00", "2026-12-15T00:00:00"),
    ],
)
def test_stripes_month_end_rule(anchor: str, interval: str, at: str, start: str, end: str) -> None:
    span = billing_span(moment(anchor), interval, moment(at))
    assert (span.start, span.end) == (moment(start).timestamp(), moment(end).timestamp())
