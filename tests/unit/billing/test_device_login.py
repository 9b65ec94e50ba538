"""Claims about the codes by which a program is signed in, and what its polls are told (RFC 8628)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain import device_login as domain
from services.billing.domain.device_login import DeviceLogin, Outcome
from services.billing.errors import DeviceLoginDecided, DeviceLoginNotFound

NOW = datetime(2026, 4, 1, tzinfo=UTC)
LOGIN = DeviceLogin("dev_1", "tollway", "", NOW, NOW + domain.LIFE, domain.INTERVAL)
SPACE = len(domain.ALPHABET) ** 8


@given(st.integers(0, SPACE - 1), st.sampled_from(["{}", " {} ", "{}\n"]), st.booleans(), st.booleans())
def test_a_code_is_read_however_a_person_types_it(number: int, around: str, lower: bool, bare: bool) -> None:
    code = domain.user_code(number)
    typed = around.format(code.replace("-", " ") if bare else code)
    assert domain.normal_code(typed.lower() if lower else typed) == code


@given(st.integers(0, SPACE - 1), st.integers(0, SPACE - 1))
def test_two_numbers_are_two_codes(one: int, other: int) -> None:
    assert (domain.user_code(one) == domain.user_code(other)) == (one == other)


@pytest.mark.parametrize(
    "typed", ["", "BCDF", "BCDF-GHJ", "BCDF-GHJKL", "ABCD-EFGH", "0000-0000", "BCDF-GHJ\0", "B" * 900]
)
def test_what_is_no_code_is_none(typed: str) -> None:
    assert domain.normal_code(typed) is None


def test_who_asks_too_soon_is_slowed_down_for_good() -> None:
    login, outcome = domain.poll(LOGIN, NOW)
    assert outcome is Outcome.PENDING
    login, outcome = domain.poll(login, NOW + timedelta(seconds=4.9))
    assert (outcome, login.interval) == (Outcome.SLOW_DOWN, timedelta(seconds=10))
    login, outcome = domain.poll(login, NOW + timedelta(seconds=14.8))
    assert (outcome, login.interval) == (Outcome.SLOW_DOWN, timedelta(seconds=15))
    _, outcome = domain.poll(login, NOW + timedelta(seconds=29.8))
    assert outcome is Outcome.PENDING


def test_an_approval_is_good_for_one_poll() -> None:
    approved = domain.approve(LOGIN, "usr_1", "acct_1", NOW)
    used, outcome = domain.poll(approved, NOW)
    assert outcome is Outcome.GRANTED
    assert domain.poll(used, NOW)[1] is Outcome.USED


@given(st.booleans(), st.integers(0, 1200))
def test_nothing_is_granted_after_the_codes_time(approved: bool, after_s: int) -> None:
    login = domain.approve(LOGIN, "usr_1", "acct_1", NOW) if approved else LOGIN
    _, outcome = domain.poll(login, NOW + timedelta(seconds=after_s))
    if after_s >= 600:
        assert outcome is Outcome.EXPIRED
    else:
        assert outcome is (Outcome.GRANTED if approved else Outcome.PENDING)


def test_a_decision_stands() -> None:
    approved, denied = domain.approve(LOGIN, "usr_1", "acct_1", NOW), domain.deny(LOGIN, "usr_1", NOW)
    assert domain.approve(approved, "usr_1", "acct_1", NOW) == approved
    assert domain.deny(denied, "usr_1", NOW) == denied
    assert domain.poll(denied, NOW)[1] is Outcome.DENIED
    for change in (
        lambda: domain.approve(approved, "usr_1", "acct_2", NOW),
        lambda: domain.approve(denied, "usr_1", "acct_1", NOW),
        lambda: domain.deny(approved, "usr_1", NOW),
    ):
        with pytest.raises(DeviceLoginDecided):
            change()


def test_a_code_that_is_over_or_anothers_is_as_one_that_never_was() -> None:
    hidden = [
        (None, NOW),
        (LOGIN, NOW + domain.LIFE),
        (domain.approve(LOGIN, "usr_2", "acct_2", NOW), NOW),
        (replace(LOGIN, user_id="usr_2", deny_time=NOW), NOW),
    ]
    told = set()
    for login, at in hidden:
        with pytest.raises(DeviceLoginNotFound) as caught:
            domain.visible(login, "usr_1", at)
        told.add(caught.value.message)
    assert len(told) == 1
