"""What others hear of use: percentages of limits, once each; totals of periods that are over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain import (
    Acquire,
    Announcement,
    CapReached,
    Command,
    Kind,
    Period,
    Release,
    Reverse,
    SetCap,
    Settle,
    UsageRecorded,
    UsageThresholdReached,
    Use,
)
from services.quota.events import to_event
from tests.unit.quota.plans import NOW, World, limit, plan
from tollway.quota.v1 import events_pb2

NOVEMBER, DECEMBER = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
WARN = (50, 80, 100)


def use(amount: int, key: str = "") -> Use:
    return Use("acct_a", "messages", amount, key)


def percents(announcements: list[Announcement]) -> list[int]:
    return [each.percent for each in announcements if isinstance(each, UsageThresholdReached)]


def heard(world: World, *commands: Command) -> list[int]:
    return percents(world.batch(*commands).announcements)


def test_a_threshold_is_announced_by_the_use_that_comes_to_it() -> None:
    world = World(plan(limit(most=10, warn=WARN), tier="pro"))
    assert heard(world, use(4)) == []
    assert world.batch(use(1)).announcements == [
        UsageThresholdReached("acct_a", "messages", ("messages",), 50, 5, 10, NOVEMBER, DECEMBER, "pro", NOW)
    ]
    assert heard(world, use(5)) == [80, 100]
    assert heard(world, use(1)) == []  # refused


def test_a_percentage_that_is_no_whole_unit_is_reached_by_the_next() -> None:
    world = World(plan(limit(most=3, warn=(50,))))
    assert [heard(world, use(1)) for _ in range(3)] == [[], [50], []]


def test_a_new_period_announces_again_and_a_changed_limit_does_not() -> None:
    world = World(plan(limit(most=10, warn=WARN)))
    assert heard(world, use(8)) == [50, 80]
    world.plan = plan(limit(most=20, warn=WARN))
    assert heard(world, use(3)) == []  # 50 % of 20, but 50 % was said in this month
    assert heard(world, use(9)) == [100]
    world.plan = plan(limit(most=1, warn=WARN))
    world.at = DECEMBER
    assert heard(world, use(1)) == [50, 80, 100]


def test_a_reversal_does_not_make_it_happen_twice() -> None:
    world = World(plan(limit(most=10, warn=WARN)))
    assert heard(world, use(6, "k")) == [50]
    assert heard(world, Reverse("acct_a", "k"), use(6)) == []


def test_a_reserve_is_not_use_until_it_is_settled() -> None:
    world = World(plan(limit(most=10, warn=WARN)))
    assert heard(world, Acquire("acct_a", "messages", 0, 9, "a"), Acquire("acct_a", "messages", 0, 1, "b")) == []
    assert heard(world, Settle("acct_a", "a", 8), Release("acct_a", "b")) == [50, 80]


def test_thresholds_of_a_cap_are_those_of_the_cap_in_force() -> None:
    world = World(plan(limit("cap", None, kind=Kind.CAP, warn=WARN)))
    assert heard(world, use(100)) == []
    assert heard(world, SetCap("acct_a", "messages", 200), use(60)) == [80]


def test_a_limit_over_two_meters_is_announced_for_their_sum() -> None:
    world = World(plan(limit(most=10, meters=("messages", "calls"), period=Period.LIFETIME, warn=(100,))))
    assert heard(world, use(6)) == []
    [reached] = world.batch(Use("acct_a", "calls", 4)).announcements
    assert isinstance(reached, UsageThresholdReached)
    assert (reached.meters, reached.used, reached.period_end) == (("messages", "calls"), 10, None)


def test_a_cap_that_a_change_of_plan_brings_below_what_is_used_is_announced_by_its_first_refusal() -> None:
    def selling(included: int) -> World:
        return World(plan(limit("cap", None, kind=Kind.CAP), price="1", included=included))

    world = selling(100)
    world.do(SetCap("acct_a", "messages", None, "10"))
    assert world.batch(use(60)).announcements == []
    world.plan = selling(0).plan
    assert world.batch(Use("acct_a", "messages", 1, dry_run=True)).announcements == []
    for command in (use(1), Acquire("acct_a", "messages", 1, 0, "lease_1")):
        world.terms["caps"]["cap"].pop("reached", None)
        settled = world.batch(command, command)
        assert settled.announcements == [
            CapReached("acct_a", "cap", ("messages",), 60, 10, True, NOVEMBER, DECEMBER, NOW)
        ]
        assert settled.grants == []
        assert list(settled.changed) == ["acct_a"]


def test_a_use_that_is_too_large_has_not_reached_the_cap() -> None:
    world = World(plan(limit("cap", None, kind=Kind.CAP)))
    world.do(SetCap("acct_a", "messages", 10))
    settled = world.batch(use(11))
    assert (settled.announcements, settled.changed) == ([], {})


steps = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 40), st.timedeltas(timedelta(0), timedelta(days=12)), st.booleans()),
    max_size=30,
)


@given(steps)
def test_each_percentage_is_heard_at_most_once_a_period_and_when_first_crossed_at_once(
    story: list[tuple[int, int, timedelta, bool]],
) -> None:
    world = World(plan())
    said: set[tuple[int, datetime]] = set()
    for amount, most, passed, keyed in story:
        world.at += passed
        world.plan = plan(limit(most=most, warn=WARN))
        before = world.used()
        settled = world.batch(use(amount, "k" if keyed else ""))
        after = world.used()
        crossed = [p for p in WARN if before * 100 < most * p <= after * 100]
        got = [each for each in settled.announcements if isinstance(each, UsageThresholdReached)]
        month = datetime(world.at.year, world.at.month, 1, tzinfo=UTC)
        assert percents(settled.announcements) == [p for p in crossed if (p, month) not in said]
        assert all((each.used, each.limit, each.period_start) == (after, most, month) for each in got)
        said |= {(p, month) for p in crossed}


@pytest.mark.parametrize(
    ("anchor", "interval", "first", "second", "start", "end"),
    [
        (None, "", NOW, DECEMBER, NOVEMBER, DECEMBER),
        (
            datetime(2026, 8, 31, 10, tzinfo=UTC),
            "month",
            NOW,
            datetime(2027, 2, 28, 10, tzinfo=UTC),
            datetime(2026, 10, 31, 10, tzinfo=UTC),
            datetime(2026, 11, 30, 10, tzinfo=UTC),
        ),
        (
            datetime(2024, 2, 29, tzinfo=UTC),
            "year",
            NOW,
            datetime(2027, 2, 28, tzinfo=UTC),
            datetime(2026, 2, 28, tzinfo=UTC),
            datetime(2027, 2, 28, tzinfo=UTC),
        ),
    ],
)
def test_the_first_use_of_a_new_billing_period_tells_the_total_of_the_last(
    anchor: datetime | None, interval: str, first: datetime, second: datetime, start: datetime, end: datetime
) -> None:
    world = World(plan(price="0.1"), at=first, anchor=anchor, interval=interval)
    assert world.batch(use(3), use(4)).announcements == []
    world.at = second - timedelta(microseconds=1) if end == second else end - timedelta(microseconds=1)
    assert world.batch(use(1)).announcements == []
    world.at = second
    settled = world.batch(use(2), use(2))
    assert settled.announcements == [UsageRecorded("acct_a", "messages", 8, start, end, second, final=True)]


def test_a_meter_that_is_not_sold_by_the_unit_tells_no_totals() -> None:
    for price in ("", "0"):
        world = World(plan(price=price))
        world.do(use(3))
        world.at = DECEMBER
        assert world.batch(use(1)).announcements == []


def test_what_is_announced_becomes_the_contracts_event() -> None:
    threshold = to_event(UsageThresholdReached("acct_a", "m", ("a", "b"), 80, 8, 10, NOVEMBER, DECEMBER, "pro", NOW))
    assert isinstance(threshold, events_pb2.UsageThresholdReached)
    assert (threshold.account_id, threshold.limit_name, list(threshold.meters)) == ("acct_a", "m", ["a", "b"])
    assert (threshold.percent, threshold.used, threshold.limit, threshold.tier) == (80, 8, 10, "pro")
    assert threshold.period_start.ToDatetime(UTC) == NOVEMBER
    assert threshold.period_end.ToDatetime(UTC) == DECEMBER
    assert threshold.reach_time.ToDatetime(UTC) == NOW
    reached = to_event(CapReached("acct_a", "cap", ("a",), 8, 8, True, NOVEMBER, None, NOW))
    assert isinstance(reached, events_pb2.CapReached)
    assert (reached.account_id, reached.used, reached.limit, reached.auto_stop) == ("acct_a", 8, 8, True)
    assert not reached.HasField("period_end")
    recorded = to_event(UsageRecorded("acct_a", "a", 8, NOVEMBER, DECEMBER, NOW, final=True))
    assert isinstance(recorded, events_pb2.UsageRecorded)
    assert (recorded.account_id, recorded.meter, recorded.used, recorded.final) == ("acct_a", "a", 8, True)
    assert recorded.period_end.ToDatetime(UTC) == DECEMBER
    assert recorded.record_time.ToDatetime(UTC) == NOW
