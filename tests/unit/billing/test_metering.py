"""Claims about reports of use: each unit once, whatever is lost, repeated or reversed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain.metering import UsageTotal, begin, delivered, report

START = datetime(2026, 3, 1, tzinfo=UTC)
END = datetime(2026, 4, 1, tzinfo=UTC)
NOTHING = UsageTotal("acct_1", "downloads", START, END, 0, START, False, 0, None, None, 0, False)


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(1, 3)),  # quota's total, and how often Stripe hears the report
        min_size=1,
        max_size=20,
    )
)
def test_the_meter_holds_what_was_used_however_often_a_report_is_repeated(steps: list[tuple[int, int]]) -> None:
    heard: dict[str, int] = {}
    total = NOTHING
    for used, tries in steps:
        total = replace(total, used=used)
        while not total.is_settled:
            total = begin(total, START + timedelta(days=3))
            for _ in range(tries):
                said = report(total, "cus_1")
                assert heard.setdefault(said.identifier, said.units) == said.units, "one identifier, one report"
            total = delivered(total)
        assert sum(heard.values()) == used


@given(st.integers(1, 1000), st.integers(0, 1000))
def test_a_report_under_way_stays_the_same_when_more_is_used_meanwhile(first: int, more: int) -> None:
    now = START + timedelta(days=3)
    begun = begin(replace(NOTHING, used=first), now)
    later = begin(replace(begun, used=first + more), now + timedelta(hours=1))
    assert report(later, "cus_1") == report(begun, "cus_1")


@pytest.mark.parametrize(
    ("now", "stamp", "late"),
    [
        (START + timedelta(days=3), START + timedelta(days=3), False),
        (START - timedelta(seconds=2), START, False),
        (END, END - timedelta(seconds=1), False),
        (END + timedelta(minutes=59), END - timedelta(seconds=1), False),
        (END + timedelta(hours=1), END + timedelta(hours=1), True),
    ],
)
def test_a_report_is_stamped_inside_its_period_until_the_invoice_is_final(
    now: datetime, stamp: datetime, late: bool
) -> None:
    begun = begin(replace(NOTHING, used=5), now)
    assert (report(begun, "cus_1").stamp, begun.late) == (stamp, late)


def test_without_a_report_under_way_there_is_none() -> None:
    with pytest.raises(ValueError, match="no report"):
        report(NOTHING, "cus_1")
    with pytest.raises(ValueError, match="no report"):
        delivered(NOTHING)
