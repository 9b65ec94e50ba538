"""Allowances: counts of things held now."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain import LEDGER_MARK, AdjustAllowance, Adjusted, AllowanceState, Reverse, Use, allowance_states
from services.quota.errors import AllowanceFull, GrantNotFound, KeyReused
from tests.unit.quota.plans import World, plan

Change = Literal["set", "add", "remove"]


def adjust(change: Change, amount: int, key: str = "", name: str = "models") -> AdjustAllowance:
    return AdjustAllowance("acct_a", name, change, amount, key)


def held(world: World, command: AdjustAllowance) -> int:
    outcome = world.do(command)
    assert isinstance(outcome, Adjusted)
    assert outcome.refused is None
    return outcome.state.held


def test_no_more_can_be_held_than_the_plan_allows_and_the_refusal_changes_nothing() -> None:
    world = World(plan(allowances={"models": 5}))
    assert held(world, adjust("add", 4)) == 4
    settled = world.batch(adjust("add", 2, "k"), adjust("set", 6))
    for outcome in settled.outcomes:
        assert isinstance(outcome, Adjusted)
        assert outcome.state == AllowanceState("models", 4, 5)
        assert outcome.refused is not None
        assert (outcome.refused.limit, outcome.refused.refusal.reason, outcome.refused.refusal.http_status) == (
            "models",
            "models_limit_reached",
            402,
        )
        assert outcome.refused.billing_url == "https://pay.example"
    assert (settled.changed, settled.grants) == ({}, [])
    assert held(world, adjust("add", 1, "k")) == 5  # a refused key is not remembered


def test_fewer_is_never_refused_though_a_lower_plan_allows_less_still() -> None:
    world = World(plan(allowances={"models": 10}))
    assert held(world, adjust("set", 10)) == 10
    world.plan = plan(allowances={"models": 2})
    assert held(world, adjust("remove", 1)) == 9
    assert held(world, adjust("set", 8)) == 8
    assert held(world, adjust("set", 8)) == 8
    outcome = world.do(adjust("add", 1))
    assert isinstance(outcome, Adjusted)
    assert outcome.refused is not None
    assert outcome.state.remaining == 0


def test_removing_more_than_is_held_leaves_none() -> None:
    world = World(plan())
    assert held(world, adjust("add", 3)) == 3
    assert held(world, adjust("remove", 5)) == 0
    assert world.terms == {"held": {}}


def test_a_repeated_key_changes_nothing_and_gets_the_first_answer() -> None:
    world = World(plan())
    assert held(world, adjust("add", 3, "k1")) == 3
    assert held(world, adjust("remove", 5, "k2")) == 0
    assert held(world, adjust("add", 1)) == 1
    settled = world.batch(adjust("add", 3, "k1"), adjust("remove", 5, "k2"))
    first, second = settled.outcomes
    assert first == Adjusted(AllowanceState("models", 3, None), replayed=True)
    assert second == Adjusted(AllowanceState("models", 0, None), replayed=True)
    assert (settled.changed, settled.grants) == ({}, [])
    for other in (adjust("add", 4, "k1"), adjust("remove", 3, "k1"), adjust("remove", 4, "k2")):
        assert isinstance(world.do(other), KeyReused)
    assert isinstance(world.do(adjust("add", 3, "k1", "seats")), KeyReused)
    assert isinstance(world.do(Use("acct_a", "messages", 3, "k1")), KeyReused)
    world.do(Use("acct_a", "messages", 3, "used"))
    assert isinstance(world.do(adjust("add", 3, "used")), KeyReused)


def test_the_ledger_says_what_changed_and_it_cannot_be_taken_back_as_usage() -> None:
    world = World(plan())
    settled = world.batch(adjust("add", 3, "k1"), adjust("remove", 5, "k2"), adjust("set", 7, "k3"))
    assert [(line.key, line.meter, line.amount) for line in settled.grants] == [
        ("k1", LEDGER_MARK + "models", 3),
        ("k2", LEDGER_MARK + "models", -3),
    ]
    assert isinstance(world.do(Reverse("acct_a", "k1")), GrantNotFound)


def test_removing_from_none_is_remembered_too() -> None:
    world = World(plan())
    settled = world.batch(adjust("remove", 1, "k"))
    assert [line.amount for line in settled.grants] == [0]
    assert set(settled.changed) == {"acct_a"}
    held(world, adjust("add", 2))
    assert held(world, adjust("remove", 1, "k")) == 0  # the first answer
    assert held(world, adjust("remove", 1)) == 1


def test_setting_what_is_already_so_changes_nothing() -> None:
    world = World(plan())
    assert world.batch(adjust("set", 3)).changed
    assert not world.batch(adjust("set", 3)).changed


def test_a_count_stays_within_63_bits() -> None:
    world = World(plan())
    assert held(world, adjust("set", 2**62)) == 2**62
    assert held(world, adjust("add", 2**62 - 1)) == 2**63 - 1
    error = world.do(adjust("add", 1))
    assert isinstance(error, AllowanceFull)
    assert error.field == "add"


def test_shown_are_those_the_plan_limits_and_those_that_are_held_by_name() -> None:
    world = World(plan(allowances={"models": 5, "a_limited": 0}))
    world.do(adjust("add", 2, name="seats"))
    assert allowance_states(world.account()) == [
        AllowanceState("a_limited", 0, 0),
        AllowanceState("models", 0, 5),
        AllowanceState("seats", 2, None),
    ]


@given(
    st.none() | st.integers(0, 10),
    st.lists(st.tuples(st.sampled_from(["set", "add", "remove"]), st.integers(0, 12)), max_size=20),
)
def test_what_is_held_grows_only_within_the_limit(most: int | None, changes: list[tuple[Change, int]]) -> None:
    world = World(plan(allowances={} if most is None else {"models": most}))
    now = 0
    for change, amount in changes:
        wanted = max(0, {"set": amount, "add": now + amount, "remove": now - amount}[change])
        outcome = world.do(adjust(change, amount))
        assert isinstance(outcome, Adjusted)
        allowed = wanted <= now or most is None or wanted <= most
        assert (outcome.refused is None) == allowed
        now = wanted if allowed else now
        assert outcome.state.held == now
