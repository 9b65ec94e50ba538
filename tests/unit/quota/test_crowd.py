"""How long a batch waits for company."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.quota.crowd import LOOK_EVERY, Crowd

MOST = 512


def test_who_is_alone_waits_for_nobody() -> None:
    crowd = Crowd()
    for _ in range(10 * LOOK_EVERY):
        assert crowd.goal(MOST) == 1
        crowd.saw(1)


def test_a_batch_is_half_of_those_who_were_seen_and_now_and_then_all_are_looked_for() -> None:
    crowd = Crowd()
    goals = []
    for _ in range(2 * LOOK_EVERY):
        goals.append(crowd.goal(MOST))
        crowd.saw(64)
    assert goals[0] == 1
    assert sorted(set(goals[1:])) == [32, MOST]
    assert goals.count(MOST) == 2


def test_callers_who_left_are_not_waited_for_for_long() -> None:
    crowd = Crowd()
    crowd.saw(400)
    for _ in range(8):
        crowd.saw_all(3)
    assert crowd.goal(MOST) == 2
    crowd.saw(400)
    goals = []
    for _ in range(120):
        crowd.saw(1)
        goals.append(crowd.goal(MOST))
    assert goals[-2:] == [1, 1]


def test_a_pause_of_those_who_read_their_answers_is_not_taken_for_their_leaving() -> None:
    crowd = Crowd()
    crowd.saw(64)
    crowd.saw_all(5)
    assert crowd.goal(MOST) == 16


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20_000))), st.integers(1, MOST))
def test_a_goal_is_always_one_that_a_batch_can_reach(seen: list[tuple[bool, int]], most: int) -> None:
    crowd = Crowd()
    for whole, uses in seen:
        (crowd.saw_all if whole else crowd.saw)(uses)
        assert 1 <= crowd.goal(most) <= most
