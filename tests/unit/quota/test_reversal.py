"""A grant is taken back: its units, its lease; never twice, never more than it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain import Acquire, Decision, Kind, Lease, Period, Release, Reversal, Reverse, Settle, Use
from services.quota.errors import GrantNotFound, GrantReversed, KeyReused, LeaseNotFound
from tests.unit.quota.plans import World, limit, plan


def use(amount: int, key: str = "") -> Use:
    return Use("acct_a", "messages", amount, key)


def reverse(key: str) -> Reverse:
    return Reverse("acct_a", key)


def test_the_units_are_free_again_and_the_key_stays_spent() -> None:
    world = World(plan(limit(most=5)))
    world.do(use(5, "k"))
    settled = world.batch(reverse("k"))
    assert settled.outcomes == [Reversal("messages", 5)]
    assert settled.reversed == [("acct_a", "k")]
    assert set(settled.changed) == {"acct_a"}
    assert [world.used(period) for period in Period] == [0, 0, 0]
    assert isinstance(world.do(use(5, "k")), GrantReversed)
    assert isinstance(world.do(use(4, "k")), KeyReused)
    decision = world.do(use(5, "another"))
    assert isinstance(decision, Decision)
    assert decision.allowed


def test_doing_it_twice_is_doing_it_once() -> None:
    world = World(plan())
    world.do(use(5, "k"))
    world.do(use(5))
    settled = world.batch(reverse("k"), reverse("k"))
    assert settled.outcomes == [Reversal("messages", 5), Reversal("messages", 5, replayed=True)]
    assert settled.reversed == [("acct_a", "k")]
    again = world.batch(reverse("k"))
    assert (again.outcomes, again.reversed, again.changed) == ([Reversal("messages", 5, replayed=True)], [], {})
    assert world.used() == 5


def test_what_was_granted_in_the_same_batch_carries_the_mark_itself() -> None:
    world = World(plan())
    settled = world.batch(use(5, "k"), reverse("k"), use(5, "k"))
    assert isinstance(settled.outcomes[2], GrantReversed)
    assert settled.reversed == []
    assert [(line.key, line.reversed) for line in settled.grants] == [("k", True)]
    assert world.used() == 0


def test_what_was_never_granted_cannot_be_taken_back() -> None:
    world = World(plan(limit(most=5)))
    world.do(use(6, "refused"))
    for key in ("refused", "other"):
        assert isinstance(world.do(reverse(key)), GrantNotFound)


def test_units_leave_only_the_periods_that_still_run() -> None:
    end = datetime(2026, 12, 1, tzinfo=UTC)
    anchor = datetime(2026, 11, 15, tzinfo=UTC)
    world = World(plan(), at=end - timedelta(microseconds=1), anchor=anchor, interval="month")
    world.do(use(5, "k"))
    world.at = end
    world.do(use(2))
    assert world.do(reverse("k")) == Reversal("messages", 5)
    assert {period: world.used(period) for period in Period} == {
        Period.MONTH: 2,
        Period.BILLING: 2,
        Period.LIFETIME: 2,
    }
    assert world.counters["messages"]["month"] == [int(end.timestamp()), 2]
    world.do(use(4, "k2"))
    world.at = datetime(2026, 12, 15, tzinfo=UTC)
    world.do(use(1))
    assert world.do(reverse("k2")) == Reversal("messages", 4)
    assert [world.used(period) for period in (Period.MONTH, Period.BILLING, Period.LIFETIME)] == [3, 1, 3]


def test_the_total_of_a_period_that_is_over_stays() -> None:
    world = World(plan())
    world.do(use(5, "k"))
    november = list(world.counters["messages"]["month"])
    world.at = datetime(2026, 12, 1, tzinfo=UTC)
    world.do(reverse("k"))
    assert world.counters["messages"]["month"] == november
    assert world.used(Period.LIFETIME) == 0


def test_units_leave_the_period_that_a_new_subscription_cut_short() -> None:
    world = World(plan())
    world.do(use(5, "k"))
    world.do(use(2))
    world.anchor, world.interval = datetime(2026, 11, 20, tzinfo=UTC), "month"
    assert world.used(Period.BILLING) == 0
    world.do(reverse("k"), after=timedelta(seconds=1))
    assert (world.used(Period.BILLING), world.used()) == (0, 2)
    world.anchor, world.interval = None, ""
    assert world.used(Period.BILLING) == 2


def test_rates_count_attempts_and_keep_them() -> None:
    world = World(plan(limit("burst", 2, kind=Kind.RATE, window=timedelta(seconds=60))))
    world.do(use(2, "k"))
    world.do(reverse("k"))
    decision = world.do(use(1))
    assert isinstance(decision, Decision)
    assert decision.refused is not None
    assert decision.refused.limit == "burst"


def test_a_leases_reserve_and_slot_go_with_it_and_nothing_of_it_can_be_settled() -> None:
    slots = limit("slots", 1, kind=Kind.CONCURRENCY)
    world = World(plan(limit(most=10), slots))
    world.do(Acquire("acct_a", "messages", 3, 7, "a", key="k"))
    settled = world.batch(reverse("k"))
    assert settled.outcomes == [Reversal("messages", 3)]
    assert settled.ended == [("acct_a", "a")]
    assert isinstance(world.do(Settle("acct_a", "a", 1)), LeaseNotFound)
    decision = world.do(Acquire("acct_a", "messages", 3, 7, "b", key="k2"))
    assert isinstance(decision, Decision)
    assert decision.allowed
    assert isinstance(world.do(Acquire("acct_a", "messages", 3, 7, "c", key="k")), GrantReversed)


def test_what_a_lease_was_settled_with_stays_counted() -> None:
    world = World(plan())
    world.do(Acquire("acct_a", "messages", 3, 7, "a", key="k"))
    world.do(Settle("acct_a", "a", 5))
    settled = world.batch(reverse("k"))
    assert settled.outcomes == [Reversal("messages", 3)]
    assert settled.ended == []
    assert world.used() == 5


def test_a_lease_that_ended_or_expired_is_not_ended_again() -> None:
    world = World(plan())
    world.do(Acquire("acct_a", "messages", 1, 0, "a", key="k1"))
    assert isinstance(world.do(Release("acct_a", "a")), Lease)
    assert world.batch(reverse("k1")).ended == []
    world.do(Acquire("acct_a", "messages", 1, 0, "b", timedelta(seconds=1), key="k2"))
    world.at += timedelta(seconds=1)
    assert world.batch(reverse("k2")).ended == [("acct_a", "b")]  # swept, for the account is written anyway


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.sampled_from(["", "a", "b", "c", "d"]),
            st.sampled_from(["use", "use", "reverse"]),
            st.timedeltas(timedelta(0), timedelta(days=9)),
        ),
        max_size=40,
    ),
    st.integers(5, 60),
)
def test_a_counter_is_the_sum_of_the_grants_that_were_not_taken_back(
    story: list[tuple[int, str, str, timedelta]], most: int
) -> None:
    world = World(plan(limit(most=most)))
    lines: dict[str, tuple[datetime, int]] = {}
    unnamed: list[tuple[datetime, int]] = []
    spent: set[str] = set()
    for amount, key, what, passed in story:
        world.at += passed
        if what == "reverse" and key:
            outcome = world.do(reverse(key))
            assert isinstance(outcome, Reversal if key in spent else GrantNotFound)
            lines.pop(key, None)
        else:
            outcome = world.do(use(amount, key))
            if isinstance(outcome, Decision) and outcome.allowed and not outcome.replayed:
                assert key not in spent
                if key:
                    lines[key] = (world.at, amount)
                    spent.add(key)
                else:
                    unnamed.append((world.at, amount))
        kept = [*lines.values(), *unnamed]
        month = datetime(world.at.year, world.at.month, 1, tzinfo=UTC)
        assert world.used(Period.LIFETIME) == sum(n for _, n in kept)
        assert world.used() == sum(n for at, n in kept if at >= month) <= most
