"""At most N in any window, exactly (DESIGN §11.1; CONTRACT: a burst of N a minute admits at most N in any 60 s)."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain import Account, Counters, Decision, Kind, Limit, Opened, Plan, Rates, Use, decide, settle
from services.quota.domain import rate as rates
from tests.integration.quota.world import entitlements as world_entitlements
from tests.invariants_quota import no_burst_exceeded_its_rate
from tests.unit.quota.plans import NOW, REFUSAL, account, limit, plan
from tollway.billing.v1 import events_pb2
from tollway.quota.v1 import quota_pb2

MINUTE = timedelta(seconds=60)
TICK = timedelta(microseconds=1)


def burst(most: int | None, *, name: str = "burst", window: timedelta = MINUTE, per_key: bool = False) -> Limit:
    meters = ("messages",)
    return Limit(name, meters, Kind.RATE, most, limit().period, REFUSAL, window, per_key)


class Story:
    """One account through time; every grant is remembered the slow way."""

    def __init__(self, of: Plan) -> None:
        self.plan = of
        self.at = NOW
        self.counters: Counters = {}
        self.rates: Rates = {}
        self.granted: list[tuple[timedelta, str, int]] = []

    def account(self) -> Account:
        state = account(self.plan, at=self.at, counters=self.counters)
        state.rates = self.rates
        return state

    def use(self, amount: int = 1, key_id: str = "", *, after: timedelta = timedelta(0)) -> Decision:
        self.at += after
        use = Use("acct_a", "messages", amount, key_id=key_id)
        [outcome] = settle([use], Opened(self.at, {"acct_a": self.account()}, {}), lambda: "k").outcomes
        assert isinstance(outcome, Decision)
        if outcome.allowed:
            self.granted.append((self.at - NOW, key_id, amount))
        return outcome

    def in_window(self, key_id: str | None = None, *, longer: timedelta = timedelta(0)) -> int:
        """Units of the window that ends now."""
        begun = self.at - NOW - MINUTE - longer
        return sum(n for at, key, n in self.granted if at > begun and key_id in (None, key))


steps = st.lists(
    st.tuples(
        st.one_of(
            st.just(timedelta(0)),
            st.timedeltas(timedelta(0), timedelta(seconds=3)),
            st.timedeltas(timedelta(0), timedelta(seconds=70)),
            st.sampled_from([TICK, MINUTE - TICK, MINUTE]),
        ),
        st.integers(1, 6),
    ),
    max_size=40,
)


@given(st.integers(0, 20), steps)
def test_a_use_is_granted_exactly_when_its_window_has_room(most: int, told: list[tuple[timedelta, int]]) -> None:
    story = Story(plan(burst(most)))
    for after, amount in told:
        story.at += after
        room = story.in_window() + amount <= most
        decision = story.use(amount)
        assert decision.allowed == room
        [state] = decision.limits
        assert (state.used, state.limit, state.window) == (story.in_window(), most, MINUTE)
    for begun, _, _ in story.granted:
        assert sum(n for at, _, n in story.granted if begun <= at < begun + MINUTE) <= most


@given(st.integers(601, 2000), st.lists(st.tuples(st.timedeltas(timedelta(0), 2 * MINUTE), st.integers(1, 1500))))
def test_no_window_of_a_large_limit_holds_more_and_it_opens_a_tenth_of_a_second_late_at_most(
    most: int, told: list[tuple[timedelta, int]]
) -> None:
    story = Story(plan(burst(most)))
    for after, amount in told:
        decision = story.use(amount, after=after)
        assert story.in_window() <= most
        if not decision.allowed:
            assert story.in_window(longer=timedelta(milliseconds=100)) + amount > most


@given(st.integers(1, 20) | st.integers(601, 700), steps, st.integers(1, 20), st.integers(0, 2))
def test_retry_after_is_the_first_instant_that_has_room(
    most: int, told: list[tuple[timedelta, int]], amount: int, more: int
) -> None:
    story = Story(plan(burst(most), burst(most + more, name="key", per_key=True), limit(most=10_000)))
    for after, each in told:
        story.use(each, after=after)
    refused = story.use(amount).refused
    if refused is None:
        return
    if refused.retry_after is None:
        assert amount > most
        return
    early = decide(story_at(story, refused.retry_after - TICK), "messages", amount)
    assert not early.allowed
    assert decide(story_at(story, refused.retry_after), "messages", amount).allowed


def story_at(story: Story, later: timedelta) -> Account:
    state = account(story.plan, at=story.at + later, counters=story.counters)
    state.rates = story.rates
    return state


@given(st.integers(1, 10), st.integers(1, 10), st.integers(1, 10), steps)
def test_rates_and_quotas_are_all_or_nothing(
    most: int, per_key: int, quota: int, told: list[tuple[timedelta, int]]
) -> None:
    story = Story(plan(burst(most), burst(per_key, name="key", per_key=True), limit(most=quota)))
    for index, (after, amount) in enumerate(told):
        key_id = f"key_{index % 2}"
        story.at += after
        before = ({meter: dict(cells) for meter, cells in story.counters.items()}, repr(story.rates))
        free = {
            "burst": story.in_window() + amount <= most,
            "key": story.in_window(key_id) + amount <= per_key,
            "messages": sum(n for _, _, n in story.granted) + amount <= quota,
        }
        decision = story.use(amount, key_id)
        assert decision.allowed == all(free.values())
        if decision.refused is not None:
            assert decision.refused.limit == next(name for name, room in free.items() if not room)
            assert (story.counters, repr(story.rates)) == before
        assert [state.name for state in decision.limits] == ["burst", "key", "messages"]


def test_the_window_opens_at_its_end_and_not_a_microsecond_before() -> None:
    story = Story(plan(burst(2)))
    assert story.use().allowed
    assert story.use(after=timedelta(seconds=10)).allowed
    refused = story.use(after=timedelta(seconds=20)).refused
    assert refused is not None
    assert (refused.limit, refused.retry_after) == ("burst", timedelta(seconds=30))
    assert not story.use(after=timedelta(seconds=30) - TICK).allowed
    decision = story.use(after=TICK)
    assert decision.allowed
    assert (decision.limits[0].used, decision.limits[0].remaining) == (2, 0)
    assert decision.limits[0].reset == story.at + MINUTE


def test_each_key_has_its_own_and_uses_without_one_share() -> None:
    story = Story(plan(burst(1, per_key=True)))
    assert story.use(1, "key_a").allowed
    assert story.use(1, "key_b").allowed
    assert not story.use(1, "key_a").allowed
    assert story.use(1).allowed
    assert not story.use(1).allowed


def test_a_change_of_plan_keeps_the_window() -> None:
    story = Story(plan(burst(5)))
    assert story.use(5).allowed
    story.plan = plan(burst(3), tier="lower")
    assert story.use(1).limits[0].remaining == 0
    story.plan = plan(burst(6), tier="higher")
    assert story.use(1).allowed
    assert not story.use(1).allowed


def test_a_rate_without_a_number_is_neither_kept_nor_shown() -> None:
    story = Story(plan(burst(None)))
    decision = story.use(10**9)
    assert decision.allowed
    assert decision.limits == []
    assert story.rates == {}


def test_a_clock_that_is_set_back_grants_no_more() -> None:
    story = Story(plan(burst(2)))
    assert story.use(1).allowed
    assert story.use(1, after=timedelta(seconds=-90)).allowed
    assert not story.use(1).allowed
    story.at = NOW
    assert not story.use(1).allowed


@given(st.integers(1, 10**6), st.lists(st.integers(0, 50_000), max_size=900), st.integers(1, 2**40))
def test_a_log_is_bounded_and_comes_back_from_its_bytes(most: int, gaps: list[int], amount: int) -> None:
    log = rates.new()
    now = rates.instant(NOW)
    for gap in gaps:
        now += gap
        if rates.free_in(log, most, 60_000_000, now, 1) == timedelta(0):
            rates.add(log, most, 60_000_000, now, 1)
        assert len(log) <= 1 + 2 * (rates.MOST + 1)
        assert log[0] == sum(log[2::2])
    rates.add(log, most, 60_000_000, now, amount)
    assert rates.unpack(rates.pack(log)) == log


@pytest.mark.parametrize("window", [None, timedelta(0), timedelta(seconds=-1)])
def test_a_rate_without_a_window_is_refused(window: timedelta | None) -> None:
    with pytest.raises(ValueError, match="window"):
        Limit("burst", ("messages",), Kind.RATE, 1, limit().period, REFUSAL, window)


@pytest.mark.parametrize(("seconds", "violated"), [(60.0, False), (59.999999, True)])
def test_the_invariant_of_bursts_sees_one_unit_too_many_in_a_window(seconds: float, violated: bool) -> None:
    told = world_entitlements("acct_a", limit=None, burst=2)
    announced = events_pb2.EntitlementsChanged(entitlements=told)
    outbox = {
        "type": announced.DESCRIPTOR.full_name,
        "account_id": "acct_a",
        "data": announced.SerializeToString(),
    }
    answer = quota_pb2.Decision(allowed=True, version=1).SerializeToString()
    lines = [
        {"account_id": "acct_a", "key": "", "key_id": "", "meter": "messages", "amount": 1, "reversed": False}
        | {"decide_time": NOW + after, "answer": answer}
        for after in (timedelta(0), timedelta(seconds=30), timedelta(seconds=seconds))
    ]
    evidence = SimpleNamespace(billing={"outbox": [outbox]}, quota={"idem": lines})
    assert bool(list(no_burst_exceeded_its_rate(evidence))) == violated  # type: ignore[arg-type]
