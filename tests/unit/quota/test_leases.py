"""Leases: slots of concurrency and units in reserve, free again by settling, releasing or the clock (DESIGN §11.4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import TollwayError
from services.quota.domain import (
    SETTLED,
    Account,
    Acquire,
    Decision,
    Kind,
    Lease,
    Limit,
    Opened,
    Outcome,
    Period,
    Release,
    Renew,
    Settle,
    Use,
    settle,
)
from services.quota.errors import KeyReused, LeaseNotFound, SettledTooMuch
from tests.unit.quota.plans import NOW, World, limit, plan

TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)


def slots(most: int | None, *, meters: tuple[str, ...] = ("messages",), window: timedelta | None = MINUTE) -> Limit:
    return limit("slots", most, meters=meters, kind=Kind.CONCURRENCY, window=window)


def acquire(
    name: str,
    amount: int = 0,
    reserve: int = 0,
    *,
    meter: str = "messages",
    lasts: timedelta | None = None,
    key: str = "",
    key_id: str = "",
    subject: str = "",
) -> Acquire:
    return Acquire("acct_a", meter, amount, reserve, name, lasts, key, key_id, subject)


def granted(outcome: Outcome) -> Lease:
    assert isinstance(outcome, Decision)
    assert outcome.refused is None
    assert outcome.lease is not None
    return outcome.lease


def refusal(outcome: Outcome) -> tuple[str, timedelta | None]:
    assert isinstance(outcome, Decision)
    assert outcome.refused is not None
    assert outcome.lease is None
    return outcome.refused.limit, outcome.refused.retry_after


def test_as_many_leases_as_the_limit_and_the_next_is_told_when_the_first_expires() -> None:
    world = World(plan(slots(2)))
    granted(world.do(acquire("a")))
    granted(world.do(acquire("b"), after=timedelta(seconds=20)))
    assert refusal(world.do(acquire("c"))) == ("slots", timedelta(seconds=40))
    assert refusal(world.do(acquire("c"), after=timedelta(seconds=40) - TICK)) == ("slots", TICK)
    decision = world.do(acquire("c"), after=TICK)
    granted(decision)
    assert isinstance(decision, Decision)
    assert [(s.name, s.kind, s.used, s.limit, s.remaining) for s in decision.limits] == [
        ("slots", Kind.CONCURRENCY, 2, 2, 0)
    ]


def test_after_a_downgrade_one_slot_is_free_when_enough_of_them_have_expired() -> None:
    world = World(plan(slots(3)))
    for name in "abc":
        granted(world.do(acquire(name), after=timedelta(seconds=10)))
    world.plan = plan(slots(1))
    assert refusal(world.do(acquire("d"))) == ("slots", timedelta(seconds=60))
    world.plan = plan(slots(0))
    assert refusal(world.do(acquire("d"))) == ("slots", None)


def test_a_slot_may_span_meters_and_a_use_needs_none() -> None:
    world = World(plan(slots(1, meters=("messages", "calls"))))
    granted(world.do(acquire("a", meter="calls")))
    assert refusal(world.do(acquire("b")))[0] == "slots"
    decision = world.do(Use("acct_a", "messages", 1))
    assert isinstance(decision, Decision)
    assert decision.allowed
    assert decision.limits[0].used == 1


def test_expiry_frees_by_the_clock_alone_and_the_row_goes_with_the_accounts_next_write() -> None:
    world = World(plan(limit(most=10), slots(1)))
    granted(world.do(acquire("a", reserve=10)))
    world.at += MINUTE
    settled = world.batch(Use("acct_a", "messages", 10))
    [decision] = settled.outcomes
    assert isinstance(decision, Decision)
    assert decision.allowed
    assert settled.ended == [("acct_a", "a")]


def test_an_expired_lease_alone_makes_nobody_write() -> None:
    world = World(plan(slots(1)))
    granted(world.do(acquire("a")))
    world.at += MINUTE
    settled = world.batch(Release("acct_a", "a"), Use("acct_a", "messages", 1, dry_run=True))
    assert isinstance(settled.outcomes[0], LeaseNotFound)
    assert (settled.changed, settled.ended) == ({}, [])


def test_a_reserve_counts_against_quotas_and_caps_and_is_free_again_when_released() -> None:
    world = World(plan(limit(most=10), limit("cap", 8, kind=Kind.CAP)))
    decision = world.do(acquire("a", amount=2, reserve=5))
    granted(decision)
    assert isinstance(decision, Decision)
    assert [(state.name, state.used) for state in decision.limits] == [("messages", 7), ("cap", 7)]
    assert world.used() == 2
    assert refusal(world.do(Use("acct_a", "messages", 2)))[0] == "cap"
    assert isinstance(world.do(Release("acct_a", "a")), Lease)
    decision = world.do(Use("acct_a", "messages", 6))
    assert isinstance(decision, Decision)
    assert decision.allowed


def test_settling_counts_what_was_used_and_ends_the_lease_once() -> None:
    world = World(plan(limit(most=10), slots(1)))
    granted(world.do(acquire("a", amount=1, reserve=5, key_id="key_1")))
    settled = world.batch(Settle("acct_a", "a", 3), Settle("acct_a", "a", 3))
    first, second = settled.outcomes
    assert isinstance(first, Decision)
    assert [(state.name, state.used) for state in first.limits] == [("messages", 4), ("slots", 0)]
    assert isinstance(second, LeaseNotFound)
    [line] = settled.grants
    assert (line.key, line.meter, line.amount, line.key_id) == (SETTLED + "a", "messages", 3, "key_1")
    assert world.used() == 4


def test_no_more_can_be_settled_than_was_held_and_trying_keeps_the_lease() -> None:
    world = World(plan(limit(most=10)))
    granted(world.do(acquire("a", reserve=5)))
    error = world.do(Settle("acct_a", "a", 6))
    assert isinstance(error, SettledTooMuch)
    assert error.field == "amount"
    assert isinstance(world.do(Settle("acct_a", "a", 5)), Decision)
    assert world.used() == 5


def test_what_was_held_is_counted_though_the_plan_went_down_or_lost_the_meter() -> None:
    world = World(plan(limit(most=10)))
    granted(world.do(acquire("a", reserve=5)))
    granted(world.do(acquire("b", reserve=5)))
    world.plan = plan(limit(most=1))
    decision = world.do(Settle("acct_a", "a", 5))
    assert isinstance(decision, Decision)
    assert (decision.limits[0].used, decision.limits[0].remaining) == (10, 0)
    world.plan = replace(plan(), meters={})
    assert isinstance(world.do(Settle("acct_a", "b", 5)), Decision)
    assert world.used() == 10


def test_a_reserve_goes_with_its_lease_into_the_next_period() -> None:
    world = World(plan(limit(most=10)), at=datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC))
    assert isinstance(world.do(Use("acct_a", "messages", 4)), Decision)
    granted(world.do(acquire("a", reserve=6)))
    world.at += timedelta(seconds=1)
    assert refusal(world.do(Use("acct_a", "messages", 5)))[0] == "messages"
    decision = world.do(Settle("acct_a", "a", 6))
    assert isinstance(decision, Decision)
    assert decision.limits[0].used == world.used() == 6
    assert world.used(Period.LIFETIME) == 10


def test_a_refusal_for_a_reserve_says_when_it_expires() -> None:
    world = World(plan(limit(most=10)))
    granted(world.do(acquire("a", reserve=6, lasts=timedelta(seconds=50))))
    granted(world.do(acquire("b", reserve=4, lasts=timedelta(seconds=20))))
    assert refusal(world.do(Use("acct_a", "messages", 4))) == ("messages", timedelta(seconds=20))
    assert refusal(world.do(Use("acct_a", "messages", 5))) == ("messages", timedelta(seconds=50))
    assert refusal(world.do(Use("acct_a", "messages", 11))) == ("messages", None)


def test_a_reserve_that_outlasts_the_period_still_stands_in_the_way_when_the_next_begins() -> None:
    world = World(plan(limit(most=10)), at=datetime(2026, 11, 30, 23, 59, 30, tzinfo=UTC))
    world.do(Use("acct_a", "messages", 6))
    granted(world.do(acquire("a", reserve=4, lasts=timedelta(seconds=45))))
    assert refusal(world.do(Use("acct_a", "messages", 6))) == ("messages", timedelta(seconds=30))
    assert refusal(world.do(Use("acct_a", "messages", 7))) == ("messages", timedelta(seconds=45))


def test_a_lease_that_expired_gives_nothing_back_again() -> None:
    world = World(plan(limit(most=10, period=Period.LIFETIME), slots(1)))
    granted(world.do(acquire("a", reserve=3, lasts=timedelta(seconds=1))))
    world.at += timedelta(seconds=1)
    world.leases["b"] = Lease("b", "acct_a", "messages", 8, world.at, world.at + MINUTE)
    assert refusal(world.do(Use("acct_a", "messages", 5))) == ("messages", MINUTE)
    assert refusal(world.do(acquire("c"))) == ("slots", MINUTE)


def test_a_renewed_lease_holds_one_slot_and_one_reserve_in_its_batch_too() -> None:
    world = World(plan(limit(most=10), slots(2)))
    granted(world.do(acquire("a", reserve=5)))
    settled = world.batch(Renew("acct_a", "a", timedelta(hours=1)), acquire("b", reserve=5))
    granted(settled.outcomes[1])


def test_renewing_lengthens_and_never_shortens() -> None:
    world = World(plan(slots(1)))
    assert granted(world.do(acquire("a"))).expire_time == NOW + MINUTE
    longer = world.do(Renew("acct_a", "a", timedelta(hours=1)))
    assert isinstance(longer, Lease)
    assert longer.expire_time == NOW + timedelta(hours=1)
    settled = world.batch(Renew("acct_a", "a"))
    assert settled.outcomes == [longer]
    assert (settled.renewed, settled.changed) == ([], {})
    later = world.do(Renew("acct_a", "a"), after=timedelta(minutes=59, seconds=30))
    assert isinstance(later, Lease)
    assert later.expire_time == NOW + timedelta(hours=1, seconds=30)
    assert isinstance(world.do(Renew("acct_a", "a"), after=MINUTE), LeaseNotFound)


def test_a_lease_lasts_as_its_caller_says_else_as_the_catalog_says_else_ten_minutes() -> None:
    world = World(plan(slots(None)))
    assert granted(world.do(acquire("a", lasts=timedelta(seconds=5)))).expire_time == NOW + timedelta(seconds=5)
    assert granted(world.do(acquire("b"))).expire_time == NOW + MINUTE
    assert granted(world.do(acquire("c", meter="calls"))).expire_time == NOW + timedelta(minutes=10)


def test_a_repeat_of_the_key_gets_the_first_answer_though_the_lease_ended() -> None:
    world = World(plan(limit(most=10), slots(1)))
    first = granted(world.do(acquire("a", 1, 2, key="k")))
    assert isinstance(world.do(Release("acct_a", "a")), Lease)
    settled = world.batch(acquire("b", 1, 2, key="k"))
    [again] = settled.outcomes
    assert granted(again) == first
    assert isinstance(again, Decision)
    assert again.replayed
    assert (settled.grants, settled.opened, settled.changed) == ([], [], {})


def test_a_key_that_comes_back_for_something_else_is_a_conflict() -> None:
    world = World(plan(limit(most=100)))
    granted(world.do(acquire("a", 1, 2, key="k")))
    granted(world.do(acquire("s", 1, 2, key="subject", subject="base.bin")))
    assert isinstance(world.do(Use("acct_a", "calls", 1, "used")), Decision)
    for other in (
        acquire("b", 2, 2, key="k"),
        acquire("b", 1, 3, key="k"),
        acquire("b", 1, 2, key="k", meter="calls"),
        Use("acct_a", "messages", 1, "k"),
        acquire("b", 1, 0, key="used", meter="calls"),
        acquire("b", 1, 2, key="k", subject="base.bin"),
        acquire("b", 1, 2, key="subject"),
        acquire("b", 1, 2, key="subject", subject="other.bin"),
    ):
        assert isinstance(world.do(other), KeyReused)
    again = world.do(acquire("b", 1, 2, key="subject", subject="base.bin"))
    assert isinstance(again, Decision)
    assert again.replayed


def test_rates_count_the_amount_and_not_the_reserve() -> None:
    burst = limit("burst", 3, kind=Kind.RATE, window=MINUTE)
    world = World(plan(burst, slots(None)))
    granted(world.do(acquire("a", amount=3, reserve=100)))
    granted(world.do(acquire("b", reserve=100)))
    assert refusal(world.do(acquire("c", amount=1))) == ("burst", MINUTE)
    settled = world.do(Settle("acct_a", "a", 100))
    assert isinstance(settled, Decision)
    assert (settled.limits[0].name, settled.limits[0].used) == ("burst", 3)
    world.at += MINUTE
    granted(world.do(acquire("c", amount=3)))
    world.plan = plan(limit("burst", 2, kind=Kind.RATE, window=MINUTE))
    granted(world.do(acquire("d")))  # counts nothing, so it is no attempt


def test_a_lease_without_units_is_not_refused_for_usage_beyond_a_lower_limit() -> None:
    world = World(plan(limit(most=10), slots(1)))
    assert isinstance(world.do(Use("acct_a", "messages", 10)), Decision)
    world.plan = plan(limit(most=5), slots(1))
    granted(world.do(acquire("a")))


def test_a_refused_acquire_counts_and_holds_nothing() -> None:
    world = World(plan(limit(most=10), slots(1)))
    granted(world.do(acquire("a")))
    settled = world.batch(acquire("b", amount=1, reserve=1, key="k"))
    assert refusal(settled.outcomes[0])[0] == "slots"
    assert (settled.grants, settled.opened, settled.changed, world.used()) == ([], [], {}, 0)


def test_a_thrown_kill_switch_stops_new_leases_and_frees_old_ones() -> None:
    world = World(plan(slots(2)))
    granted(world.do(acquire("a", reserve=1)))
    granted(world.do(acquire("b", reserve=1)))
    world.switches = frozenset({""})
    assert refusal(world.do(acquire("c")))[0] == "kill_switch"
    assert isinstance(world.do(Settle("acct_a", "a", 1)), Decision)
    assert isinstance(world.do(Release("acct_a", "b")), Lease)


def test_what_a_batch_opened_renewed_and_ended_stands_in_one_place_only() -> None:
    world = World(plan(slots(None)))
    granted(world.do(acquire("old")))
    hour = timedelta(hours=1)
    settled = world.batch(
        acquire("gone"),
        acquire("new"),
        Renew("acct_a", "new", hour),
        Renew("acct_a", "old", hour),
        Release("acct_a", "gone"),
    )
    assert [(lease.id, lease.expire_time) for lease in settled.opened] == [("new", NOW + hour)]
    assert [(lease.id, lease.expire_time) for lease in settled.renewed] == [("old", NOW + hour)]
    assert settled.ended == []
    settled = world.batch(Renew("acct_a", "old", 2 * hour), Settle("acct_a", "old", 0))
    assert (settled.renewed, settled.ended, settled.grants) == ([], [("acct_a", "old")], [])


def test_reserves_never_make_a_counter_that_does_not_fit() -> None:
    world = World(plan())
    granted(world.do(acquire("a", reserve=2**62)))
    granted(world.do(acquire("b", reserve=2**62 - 1)))
    error = world.do(Use("acct_a", "messages", 1))
    assert isinstance(error, TollwayError)
    assert error.error_reason == "COUNTER_FULL"
    for name, amount in (("a", 2**62), ("b", 2**62 - 1)):
        assert isinstance(world.do(Settle("acct_a", name, amount)), Decision)
    assert world.used() == 2**63 - 1


def test_another_accounts_lease_is_not_found() -> None:
    lease = Lease("lease_1", "acct_a", "messages", 0, NOW, NOW + MINUTE)
    both = {
        "acct_a": Account("acct_a", 1, plan(), None, "", {}, NOW, leases={"lease_1": lease}),
        "acct_b": Account("acct_b", 1, plan(), None, "", {}, NOW),
    }
    commands = [Renew("acct_b", "lease_1"), Settle("acct_b", "lease_1"), Release("acct_b", "lease_1")]
    settled = settle(commands, Opened(NOW, both, {}), str)
    assert [type(outcome) for outcome in settled.outcomes] == [LeaseNotFound] * 3
    assert (settled.changed, settled.ended) == ({}, [])


steps = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "use", "settle", "release", "wait"]),
        st.integers(0, 8),
        st.integers(0, 8),
        st.sampled_from([timedelta(0), timedelta(seconds=25), MINUTE]),
    ),
    max_size=40,
)


@given(st.integers(0, 4), st.integers(0, 25), st.integers(0, 25), steps)
def test_live_leases_stay_within_slots_and_reserve_with_use_within_quota_at_every_step(
    most: int, quota: int, cap: int, story: list[tuple[str, int, int, timedelta]]
) -> None:
    world = World(plan(slots(most), limit(most=quota), limit("cap", cap, kind=Kind.CAP)))
    ids: list[str] = []
    ends: dict[str, tuple[datetime, int]] = {}
    counted = 0
    for what, amount, reserve, passed in story:
        if what == "wait":
            world.at += passed
        elif what == "use":
            outcome = world.do(Use("acct_a", "messages", amount + 1))
            counted += amount + 1 if isinstance(outcome, Decision) and outcome.allowed else 0
        elif what == "acquire":
            ids.append(f"l{len(ids)}")
            outcome = world.do(acquire(ids[-1], amount, reserve))
            if isinstance(outcome, Decision) and outcome.allowed:
                counted += amount
                ends[ids[-1]] = (world.at + MINUTE, reserve)
        elif ids:
            lease_id = ids[reserve % len(ids)]
            outcome = world.do(Settle("acct_a", lease_id, amount) if what == "settle" else Release("acct_a", lease_id))
            if not isinstance(outcome, TollwayError):
                assert ends.pop(lease_id)[0] > world.at
                counted += amount if what == "settle" else 0
        live = [held for end, held in ends.values() if end > world.at]
        assert len(live) <= most
        assert world.used() == counted
        assert counted + sum(live) <= min(quota, cap)
