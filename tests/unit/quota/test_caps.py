"""Caps that accounts set on themselves: in units or in money, refusing or only announced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain import CapReached, Decision, Kind, Limit, LimitState, Period, SetCap, Use
from services.quota.errors import CapNotOffered, NotSoldByUnit, UnknownMeter
from tests.unit.quota.plans import NOW, REFUSAL, World, limit, plan

DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


def cap(most: int | None = None, *, period: Period = Period.BILLING, meters: tuple[str, ...] = ("messages",)) -> Limit:
    return limit("cap", most, kind=Kind.CAP, period=period, meters=meters)


def units(most: int | None, *, auto_stop: bool = True) -> SetCap:
    return SetCap("acct_a", "messages", most, auto_stop=auto_stop)


def money(amount: str, *, auto_stop: bool = True) -> SetCap:
    return SetCap("acct_a", "messages", overage_amount=amount, auto_stop=auto_stop)


def use(amount: int = 1) -> Use:
    return Use("acct_a", "messages", amount)


def decided(world: World, amount: int = 1) -> Decision:
    outcome = world.do(use(amount))
    assert isinstance(outcome, Decision)
    return outcome


def told(world: World, command: SetCap) -> tuple[int, int | None, bool]:
    state = world.do(command)
    assert isinstance(state, LimitState)
    assert state.kind is Kind.CAP
    return state.used, state.limit, state.auto_stop


def test_a_cap_refuses_from_the_next_decision_on_until_the_period_is_over() -> None:
    world = World(plan(cap()))
    assert decided(world, 5).allowed
    assert told(world, units(8)) == (5, 8, True)
    assert not decided(world, 4).allowed
    assert decided(world, 3).allowed
    refused = decided(world).refused
    assert refused is not None
    assert (refused.limit, refused.refusal) == ("cap", REFUSAL)
    assert refused.retry_after == DECEMBER - NOW
    # 402, but paying helps nobody who capped themselves: they get the contact.
    assert (refused.billing_url, refused.support_contact) == ("", "mailto:help@example.com")
    world.at = DECEMBER
    assert decided(world, 8).allowed


def test_raising_or_removing_a_cap_ends_the_suspension() -> None:
    world = World(plan(cap()))
    told(world, units(0))
    assert not decided(world).allowed
    told(world, units(1))
    assert decided(world).allowed
    assert not decided(world).allowed
    assert told(world, units(None)) == (1, None, True)
    assert decided(world, 1000).allowed
    assert world.terms == {"caps": {}}


def test_the_lower_of_the_catalogs_cap_and_the_accounts_own_is_in_force() -> None:
    world = World(plan(cap(10)))
    assert told(world, units(20)) == (0, 10, True)
    assert not decided(world, 11).allowed
    assert told(world, units(5)) == (0, 5, True)
    assert not decided(world, 6).allowed
    assert told(world, units(5, auto_stop=False)) == (0, 10, True)
    assert decided(world, 6).allowed


def test_without_auto_stop_nothing_is_refused_and_it_is_announced_all_the_same() -> None:
    world = World(plan(cap()))
    assert told(world, units(5, auto_stop=False)) == (0, 5, False)
    settled = world.batch(use(6))
    [decision] = settled.outcomes
    assert isinstance(decision, Decision)
    assert decision.allowed
    assert (decision.limits[0].auto_stop, decision.limits[0].remaining) == (False, 0)
    [reached] = settled.announcements
    assert isinstance(reached, CapReached)
    assert not reached.auto_stop
    assert world.batch(use(1)).announcements == []


def test_reaching_a_cap_is_announced_once_for_each_setting_and_period() -> None:
    world = World(plan(cap()))
    told(world, units(5))
    assert world.batch(use(4)).announcements == []
    settled = world.batch(use(1), use(1))
    assert settled.announcements == [
        CapReached("acct_a", "cap", ("messages",), 5, 5, True, datetime(2026, 11, 1, tzinfo=UTC), DECEMBER, NOW)
    ]
    assert [type(each) for each in world.batch(units(7), use(2)).announcements] == [CapReached]
    assert [type(each) for each in world.batch(units(3)).announcements] == [CapReached]  # at once: 7 were used
    assert world.batch(units(3)).announcements == []
    world.at = DECEMBER
    assert [type(each) for each in world.batch(use(3), use(1)).announcements] == [CapReached]


def test_asking_for_what_is_already_so_changes_nothing() -> None:
    world = World(plan(cap(), price="0.5"))
    assert world.batch(units(None)).changed == {}
    for command, same in ((units(5), units(5)), (money("10"), money("10.0"))):
        assert set(world.batch(command).changed) == {"acct_a"}
        settled = world.batch(same)
        assert (settled.changed, settled.announcements) == ({}, [])
    assert world.batch(money("10", auto_stop=False)).changed


def test_money_follows_the_live_price_and_the_included_units() -> None:
    world = World(plan(cap(), price="0.3", included=10))
    assert told(world, money("1")) == (0, 13, True)
    world.plan = plan(cap(), price="0.5", included=1)
    assert [decided(world, amount).allowed for amount in (4, 3)] == [False, True]
    for price in ("", "0"):  # nothing costs any more, so nothing is capped
        world.plan = plan(cap(), price=price)
        assert decided(world, 1000).allowed


@given(
    st.decimals("0", "1000000", places=4),
    st.decimals("0.000000000001", "99", places=12),
    st.integers(0, 2**40),
    st.booleans(),
)
def test_a_money_cap_admits_exactly_what_it_pays_for(
    amount: Decimal, price: Decimal, included: int, stops: bool
) -> None:
    world = World(plan(cap(), price=str(price), included=included))
    _, most, auto_stop = told(world, money(str(amount), auto_stop=stops))
    assert most is not None
    assert auto_stop == stops
    paid = most - included
    scaled = 10**12
    cost, budget = int(price * scaled), int(amount * scaled)
    assert paid * cost <= budget < (paid + 1) * cost


def test_a_cap_over_two_meters_counts_both() -> None:
    world = World(plan(cap(meters=("messages", "calls"))))
    told(world, SetCap("acct_a", "calls", 5))
    assert decided(world, 3).allowed
    assert not decided(world, 3).allowed


@pytest.mark.parametrize(
    ("command", "error", "field"),
    [
        (SetCap("acct_a", "nonsense", 5), UnknownMeter, "meter"),
        (SetCap("acct_a", "calls", 5), CapNotOffered, "meter"),
        (SetCap("acct_a", "calls"), CapNotOffered, "meter"),
        (money("5"), NotSoldByUnit, "overage_amount"),
    ],
)
def test_what_cannot_be_capped_is_named(command: SetCap, error: type, field: str) -> None:
    world = World(plan(cap()))
    outcome = world.do(command)
    assert type(outcome) is error
    assert outcome.field == field  # type: ignore[union-attr]
    assert world.terms == {}


def test_a_setting_outlives_a_plan_without_the_cap() -> None:
    world = World(plan(cap()))
    told(world, units(1))
    world.plan = plan()
    assert decided(world, 5).allowed
    world.plan = plan(cap())
    assert not decided(world).allowed


def test_a_cap_that_was_reached_by_a_clock_a_microsecond_early_is_free_in_time() -> None:
    world = World(plan(cap()), at=DECEMBER - timedelta(microseconds=1))
    told(world, units(1))
    assert decided(world).allowed
    assert not decided(world).allowed
    world.at = DECEMBER
    assert decided(world).allowed
