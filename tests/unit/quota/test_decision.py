"""Invariants of one decision and of many in a row (DESIGN §11.1 to 3)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import TollwayError
from services.quota.domain import (
    ALL,
    KILL_SWITCH,
    Account,
    Counters,
    Decision,
    Grant,
    Kind,
    Limit,
    Opened,
    Period,
    Plan,
    Unknown,
    Use,
    billing_span,
    charge,
    decide,
    month_span,
    settle,
)
from services.quota.domain.plan import SUSPENDED
from services.quota.errors import CounterFull, KeyReused, UnknownMeter
from tests.unit.quota.plans import CLOSED, NOW, account, limit, plan

DAY = timedelta(days=1)

limits = st.builds(
    limit,
    name=st.sampled_from(["a", "b", "c"]),
    most=st.none() | st.integers(0, 40),
    meters=st.sampled_from([("messages",), ("calls",), ("messages", "calls")]),
    kind=st.sampled_from([Kind.QUOTA, Kind.CAP]),
    period=st.sampled_from(list(Period)),
)
plans = st.lists(limits, max_size=3, unique_by=lambda each: each.name).map(lambda found: plan(*found))
uses = st.builds(
    Use,
    account_id=st.just("acct_a"),
    meter=st.sampled_from(["messages", "calls"]),
    amount=st.integers(1, 30),
    key=st.sampled_from(["", "", "k1", "k2", "k3"]),
    dry_run=st.booleans(),
)


@dataclass
class Told:
    """Everything that happened to an account, kept the slow way: one line per grant."""

    granted: list[tuple[datetime, str, int]] = field(default_factory=list)

    def used(self, meter: str, since: datetime) -> int:
        return sum(amount for at, name, amount in self.granted if name == meter and at >= since)


def starts(at: datetime) -> dict[Period, datetime]:
    month = datetime(at.year, at.month, 1, tzinfo=UTC)
    return {Period.MONTH: month, Period.BILLING: month, Period.LIFETIME: datetime(1970, 1, 1, tzinfo=UTC)}


@given(st.lists(st.tuples(plans, st.timedeltas(timedelta(0), timedelta(days=20)), st.lists(uses, max_size=6))))
def test_no_grant_exceeds_the_limit_in_force_whatever_plans_and_months_come(
    steps: list[tuple[Plan, timedelta, list[Use]]],
) -> None:
    told, at = Told(), NOW
    counters: Counters = {}
    names = itertools.count()
    granted: dict[tuple[str, str], Grant] = {}
    for version, (present, passed, batch) in enumerate(steps, start=1):
        at += passed
        state = account(present, at=at, counters=counters, version=version)
        opened = Opened(at, {"acct_a": state}, granted)
        settled = settle(batch, opened, lambda: f"\x1f{next(names)}")
        for use, outcome in zip(batch, settled.outcomes, strict=True):
            if not isinstance(outcome, Decision):
                assert isinstance(outcome, KeyReused)
                continue
            if outcome.allowed and not outcome.replayed and not use.dry_run:
                told.granted.append((at, use.meter, use.amount))
                for each in present.limits_of[use.meter]:
                    used = sum(told.used(meter, starts(at)[each.period]) for meter in each.meters)
                    assert each.limit is None or used <= each.limit
        for meter, period in itertools.product(("messages", "calls"), Period):
            assert state.used(meter, period) == told.used(meter, starts(at)[period])
        assert sum(grant.amount for grant in settled.grants) == sum(
            use.amount
            for use, outcome in zip(batch, settled.outcomes, strict=True)
            if isinstance(outcome, Decision) and outcome.allowed and not outcome.replayed and not use.dry_run
        )


@given(plans, st.dictionaries(st.sampled_from(["messages", "calls"]), st.integers(0, 50)), uses)
def test_a_refusal_changes_nothing_and_a_dry_run_says_what_a_real_one_would(
    present: Plan, used: dict[str, int], use: Use
) -> None:
    def fresh() -> Account:
        counters: Counters = {
            meter: {"month": [month_span(NOW).start, n], "billing": [month_span(NOW).start, n], "lifetime": [0, n]}
            for meter, n in used.items()
        }
        return account(present, counters=counters)

    dry, real = fresh(), fresh()
    [tried] = settle([replace(use, dry_run=True)], Opened(NOW, {"acct_a": dry}, {}), str).outcomes
    settled = settle([replace(use, dry_run=False, key="")], Opened(NOW, {"acct_a": real}, {}), lambda: "k")
    assert tried == settled.outcomes[0]
    assert dry.counters == fresh().counters
    assert isinstance(tried, Decision)
    if not tried.allowed:
        assert real.counters == fresh().counters
        assert not settled.grants
        assert not settled.changed


@given(plans, st.integers(1, 40))
def test_it_is_all_or_nothing_and_the_first_limit_in_order_binds(present: Plan, amount: int) -> None:
    state = account(present)
    decision = decide(state, "messages", amount)
    blocking = [each for each in present.limits_of["messages"] if each.limit is not None and amount > each.limit]
    assert decision.allowed == (not blocking)
    if blocking:
        assert decision.refused is not None
        assert decision.refused.limit == blocking[0].name
        assert blocking[0].kind == min(each.kind for each in blocking)
        assert all(shown.used == 0 for shown in decision.limits)


@given(st.lists(uses, min_size=1, max_size=12))
def test_a_key_has_one_answer_within_a_batch_too(batch: list[Use]) -> None:
    state = account(plan(limit(most=60), limit("calls", 60, meters=("calls",))))
    settled = settle(batch, Opened(NOW, {"acct_a": state}, {}), lambda: "\x1f")
    first: dict[str, tuple[Use, Decision]] = {}
    for use, outcome in zip(batch, settled.outcomes, strict=True):
        if not use.key or use.dry_run:
            continue
        if use.key not in first:
            assert isinstance(outcome, Decision)
            assert not outcome.replayed
            if outcome.allowed:  # a refusal is not remembered
                first[use.key] = (use, outcome)
            continue
        before, answer = first[use.key]
        if (before.meter, before.amount) == (use.meter, use.amount):
            assert isinstance(outcome, Decision)
            assert outcome.replayed
            assert outcome.limits == answer.limits
        else:
            assert isinstance(outcome, KeyReused)
    named = [grant.key for grant in settled.grants if grant.key != "\x1f"]
    assert len(named) == len(set(named))


def test_the_month_rolls_over_to_the_second_without_any_event() -> None:
    end = datetime(2026, 12, 1, tzinfo=UTC)
    before = account(plan(limit(most=5)), at=end - timedelta(microseconds=1))
    charge(before, "messages", 5)
    refused = decide(before, "messages", 1).refused
    assert refused is not None
    assert refused.retry_after == timedelta(microseconds=1)
    after = account(plan(limit(most=5)), at=end, counters=before.counters)
    decision = decide(after, "messages", 5)
    assert decision.allowed
    assert decision.limits[0].reset == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("period", [Period.MONTH, Period.BILLING])
def test_a_clock_that_is_set_back_over_the_end_of_a_period_forgets_nothing(period: Period) -> None:
    # The store moves to a machine whose clock is a moment behind, just as a period has begun.
    end, terms = datetime(2026, 12, 1, tzinfo=UTC), plan(limit(most=5, period=period))
    counters: Counters = {}
    used = []
    for at in (end, end - timedelta(seconds=1), end + timedelta(seconds=1)):
        present = account(terms, at=at, counters=counters, anchor=end - timedelta(days=61), interval="month")
        if decide(present, "messages", 2).allowed:
            charge(present, "messages", 2)
        used.append(present.used("messages", period))
    assert used == [2, 4, 4]


@given(
    st.dates(date(2023, 1, 1), date(2029, 12, 31)),
    st.times(),
    st.sampled_from(["month", "year"]),
    st.timedeltas(timedelta(0), timedelta(days=1600)),
)
def test_a_billing_quota_is_full_until_the_period_ends_and_not_a_microsecond_longer(
    day: date, time: time, interval: str, passed: timedelta
) -> None:
    anchor = datetime.combine(day, time.replace(microsecond=0), UTC)
    span = billing_span(anchor, interval, anchor + passed)
    assert span.end is not None
    begun, end = datetime.fromtimestamp(span.start, UTC), datetime.fromtimestamp(span.end, UTC)
    of = plan(limit(most=5, period=Period.BILLING))
    state = account(of, at=begun, anchor=anchor, interval=interval)
    charge(state, "messages", 5)
    last = account(of, at=end - timedelta(microseconds=1), anchor=anchor, interval=interval, counters=state.counters)
    refused = decide(last, "messages", 1).refused
    assert refused is not None
    assert refused.retry_after == timedelta(microseconds=1)
    after = account(of, at=end, anchor=anchor, interval=interval, counters=state.counters)
    assert decide(after, "messages", 5).allowed
    # On the anchor's day, or the month's last.
    assert end.day == anchor.day or (end.day < anchor.day and (end + timedelta(days=1)).day == 1)


def test_units_beyond_the_included_ones_of_the_billing_period_are_told_and_a_refusal_has_none() -> None:
    state = account(plan(limit(most=20), price="0.1", included=10))
    told = []
    for amount in (7, 5, 4, 9):
        decision = decide(state, "messages", amount)
        told.append((decision.allowed, decision.overage_units))
        if decision.allowed:
            charge(state, "messages", amount)
    assert told == [(True, 0), (True, 2), (True, 4), (False, 0)]
    free = account(plan(included=10))
    assert decide(free, "messages", 50).overage_units == 0


def test_what_was_used_before_the_plan_sold_the_meter_is_not_sold_afterwards() -> None:
    state = account(plan())
    charge(state, "messages", 8)
    sold = account(plan(price="0.1", included=10), counters=state.counters)
    assert decide(sold, "messages", 10).overage_units == 0
    assert decide(sold, "messages", 13).overage_units == 3
    charge(sold, "messages", 13)
    assert decide(sold, "messages", 1).overage_units == 1


def test_usage_is_kept_through_a_change_of_plan_and_shown_beyond_a_lower_limit() -> None:
    state = account(plan(limit(most=1000)))
    charge(state, "messages", 150)
    lower = account(plan(limit(most=100)), counters=state.counters)
    decision = decide(lower, "messages", 1)
    assert not decision.allowed
    assert (decision.limits[0].used, decision.limits[0].limit, decision.limits[0].remaining) == (150, 100, 0)


def test_a_quota_by_billing_period_finds_what_a_monthly_plan_counted() -> None:
    anchor = datetime(2026, 11, 10, 12, tzinfo=UTC)
    state = account(plan(limit(most=100)), anchor=anchor, interval="month")
    charge(state, "messages", 30)
    billed = plan(limit(most=40, period=Period.BILLING))
    same = account(billed, anchor=anchor, interval="month", counters=state.counters)
    assert decide(same, "messages", 11).refused is not None
    assert decide(same, "messages", 10).limits[0].reset == datetime(2026, 12, 10, 12, tzinfo=UTC)
    later = account(
        billed, at=datetime(2026, 12, 10, 12, tzinfo=UTC), anchor=anchor, interval="month", counters=state.counters
    )
    assert decide(later, "messages", 40).allowed


def test_usage_of_a_subscription_still_counts_when_it_ends_and_the_month_stands_in() -> None:
    anchor = datetime(2026, 11, 10, tzinfo=UTC)
    state = account(plan(), anchor=anchor, interval="month")
    charge(state, "messages", 30)
    ended = account(plan(limit(most=30, period=Period.BILLING)), counters=state.counters)
    assert not decide(ended, "messages", 1).allowed


def test_a_limit_over_two_meters_counts_both() -> None:
    state = account(plan(limit(most=10, meters=("messages", "calls"))))
    charge(state, "messages", 6)
    assert decide(state, "calls", 4).allowed
    assert not decide(state, "calls", 5).allowed


def test_a_closed_gate_refuses_with_its_own_words_before_any_quota() -> None:
    closed = plan(limit(most=0), gate="live", gates={"live": False})
    refused = decide(account(closed), "messages", 1).refused
    assert refused is not None
    assert (refused.limit, refused.refusal, refused.billing_url) == ("live", CLOSED, "")
    assert decide(account(plan(gate="live", gates={"live": True})), "messages", 1).allowed


def test_a_kill_switch_comes_before_everything() -> None:
    refused = decide(account(plan(gate="live")), "messages", 1, switches={"messages"}).refused
    assert refused is not None
    assert (refused.limit, refused.refusal, refused.billing_url) == (KILL_SWITCH, SUSPENDED, "")


@given(plans, uses, st.sets(st.sampled_from([ALL, "messages", "calls"])))
def test_a_kill_switch_refuses_its_meter_or_all_and_consumes_nothing(present: Plan, use: Use, thrown: set[str]) -> None:
    state = account(present)
    settled = settle([replace(use, key="")], Opened(NOW, {"acct_a": state}, {}, frozenset(thrown)), lambda: "k")
    [decision] = settled.outcomes
    assert isinstance(decision, Decision)
    bound = decision.refused is not None and decision.refused.limit == KILL_SWITCH
    assert bound == (ALL in thrown or use.meter in thrown)
    if bound:
        assert not settled.grants
        assert state.counters == {}


def test_a_meter_without_a_limit_is_counted_and_unlimited() -> None:
    state = account(plan())
    decision = decide(state, "messages", 2**62)
    assert decision.allowed
    assert decision.limits == []


def test_time_heals_only_what_would_fit_afterwards() -> None:
    monthly = account(plan(limit(most=5)))
    charge(monthly, "messages", 5)
    fits, never = decide(monthly, "messages", 5).refused, decide(monthly, "messages", 6).refused
    assert fits is not None
    assert never is not None
    assert fits.retry_after == datetime(2026, 12, 1, tzinfo=UTC) - NOW
    assert never.retry_after is None
    lifetime = decide(account(plan(limit(most=0, period=Period.LIFETIME))), "messages", 1).refused
    assert lifetime is not None
    assert lifetime.retry_after is None


MINUTE = timedelta(seconds=60)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.timedeltas(timedelta(0), MINUTE)), max_size=8),
    st.integers(1, 6),
    *[st.none() | st.integers(0, 12) for _ in range(4)],
)
def test_after_the_time_that_a_refusal_names_it_is_allowed_and_not_before(
    story: list[tuple[int, timedelta]],
    amount: int,
    burst: int | None,
    month: int | None,
    billing: int | None,
    ever: int | None,
) -> None:
    of = plan(
        limit("burst", burst, kind=Kind.RATE, window=MINUTE),
        limit("month", month),
        limit("billing", billing, period=Period.BILLING),
        limit("ever", ever, period=Period.LIFETIME),
    )
    state = account(of, anchor=datetime(2026, 11, 10, tzinfo=UTC), interval="month")

    def then(later: datetime) -> Account:
        return replace(state, at=later)

    for units, passed in story:
        state = then(state.at + passed)
        charge(state, "messages", units)
    refused = decide(state, "messages", amount).refused
    if refused is None:
        return
    if (wait := refused.retry_after) is None:
        assert not any(decide(then(state.at + days), "messages", amount).allowed for days in (MINUTE, 400 * DAY))
    else:
        assert decide(then(state.at + wait), "messages", amount).allowed
        assert not decide(then(state.at + wait - timedelta(microseconds=1)), "messages", amount).allowed


@given(st.lists(st.integers(1, 2**62), max_size=6))
def test_no_counter_ever_leaves_63_bits(amounts: list[int]) -> None:
    both: Limit = limit("both", None, meters=("messages", "calls"))
    state = account(plan(both))
    for amount, meter in zip(amounts, itertools.cycle(("messages", "calls")), strict=False):
        try:
            decision = decide(state, meter, amount)
        except CounterFull:
            assert state.used(meter, Period.LIFETIME) + amount > 2**63 - 1
        else:
            charge(state, meter, amount)
            assert decision.limits[0].used <= 2**63 - 1
        assert state.used(meter, Period.LIFETIME) <= 2**63 - 1


def test_a_stranger_and_an_unknown_meter_do_not_touch_their_neighbours() -> None:
    state = account(plan(limit(most=1)))
    batch = [Use("acct_x", "messages", 1), Use("acct_a", "nonsense", 1), Use("acct_a", "messages", 1)]
    stranger, unknown, decision = settle(batch, Opened(NOW, {"acct_a": state}, {}), lambda: "k").outcomes
    assert isinstance(stranger, Unknown)
    assert isinstance(unknown, UnknownMeter)
    assert isinstance(decision, Decision)
    assert decision.allowed


def test_errors_name_their_field() -> None:
    error: TollwayError
    for error, name in ((UnknownMeter("x"), "meter"), (CounterFull("x"), "amount"), (KeyReused(), "request_id")):
        assert error.field == name
    with pytest.raises(UnknownMeter):
        decide(account(plan()), "nonsense", 1)
