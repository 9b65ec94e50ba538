"""Decisions as messages: what the ledger keeps is what a repeat is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.quota.answers import from_ledger, to_adjusted, to_limit, to_message
from services.quota.domain import (
    Adjusted,
    AllowanceState,
    Decision,
    Kind,
    Lease,
    LimitState,
    Refusal,
    Refused,
)
from tests.unit.quota.plans import NOW
from tollway.quota.v1 import quota_pb2

numbers = st.integers(0, 2**63 - 1)
seconds = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda at: at.replace(microsecond=0)
)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
names = st.text(st.characters(codec="utf-8"), max_size=20)
counted = st.builds(
    LimitState,
    names,
    numbers,
    st.none() | numbers,
    st.none() | seconds,
    st.none(),
    st.sampled_from([Kind.QUOTA, Kind.CAP, Kind.CONCURRENCY]),
    st.booleans(),
)
rates = st.builds(
    LimitState,
    names,
    numbers,
    numbers,
    st.none() | seconds,
    st.timedeltas(timedelta(microseconds=1), timedelta(days=1)),
    st.just(Kind.RATE),
)
leases = st.builds(Lease, names, names, names, numbers, instants, instants, names)
decisions = st.builds(
    Decision,
    names,
    st.integers(1, 2**40),
    st.lists(counted | rates, max_size=4),
    overage_units=numbers,
    lease=st.none() | leases,
)


@given(decisions)
def test_a_grant_comes_back_from_the_ledger_as_it_was(decision: Decision) -> None:
    assert from_ledger(to_message(decision).SerializeToString()) == decision


def test_lines_of_releases_that_told_no_kind_are_rates_by_their_window_and_quotas_else() -> None:
    old = quota_pb2.Decision(allowed=True, tier="free", version=3)
    old.limits.add(name="burst", used=1, limit=20).window.FromSeconds(60)
    old.limits.add(name="messages", used=1, limit=100)
    decision = from_ledger(old.SerializeToString())
    assert [(state.name, state.kind, state.auto_stop) for state in decision.limits] == [
        ("burst", Kind.RATE, False),
        ("messages", Kind.QUOTA, False),
    ]
    assert (decision.lease, decision.overage_units) == (None, 0)


def test_the_domains_kinds_are_the_contracts() -> None:
    for kind in Kind:
        assert quota_pb2.LimitKind.Name(to_limit(LimitState("x", 0, None, None, None, kind)).kind).endswith(kind.name)


def test_a_decision_without_the_store_says_so_and_shows_no_limits() -> None:
    message = to_message(Decision("pro", 3, [], unverified=True))
    assert (message.allowed, message.unverified, len(message.limits)) == (True, True, 0)


def test_a_refused_allowance_carries_the_refusal_and_unlimited_is_an_unset_limit() -> None:
    words = Refusal("models_limit_reached", 402, "The plan allows 5 of models.")
    refused = Refused("models", words, "https://pay.example", "mailto:help@example.com", None)
    message = to_adjusted(Adjusted(AllowanceState("models", 5, 5), refused))
    assert not message.allowed
    assert (message.allowance.held, message.allowance.limit, message.allowance.remaining) == (5, 5, 0)
    assert (message.refusal.reason, message.refusal.http_status) == ("models_limit_reached", 402)
    assert message.refusal.billing_url == "https://pay.example"
    free = to_adjusted(Adjusted(AllowanceState("models", 5, None)))
    assert free.allowed
    assert not free.HasField("refusal")
    assert not free.allowance.HasField("limit")
    assert not free.allowance.HasField("remaining")


def test_a_leases_times_keep_their_microseconds() -> None:
    at = NOW.replace(microsecond=123_456)
    lease = Lease("lease_1", "acct_a", "messages", 5, at, at + timedelta(seconds=90), "key_1")
    told = to_message(Decision("pro", 3, [], lease=lease)).lease
    assert told.acquire_time.ToDatetime(UTC) == at
    assert told.expire_time.ToDatetime(UTC) == at + timedelta(seconds=90)
