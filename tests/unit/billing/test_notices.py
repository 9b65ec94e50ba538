"""What is told of a subscription's life: each fact once, whatever is read again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain.notices import TRIAL_NOTICE, Told, due
from services.billing.domain.subscription import Subscription

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BEGUN = Subscription(
    id="sub_1",
    customer_id="cus_1",
    status="active",
    price_id="price_pro",
    lookup_key="",
    interval="month",
    create_time=NOW,
    anchor=NOW,
    period_start=NOW,
    period_end=NOW + timedelta(days=31),
    cancel_at_period_end=False,
    cancel_at=None,
    canceled_at=None,
    ended_at=None,
    trial_end=None,
)
DAYS = st.integers(0, 31).map(lambda days: NOW + timedelta(days=days))
RUNNING = st.builds(
    lambda status, flag, at, trial: replace(
        BEGUN, status=status, cancel_at_period_end=flag, cancel_at=at, trial_end=trial
    ),
    st.sampled_from(["trialing", "active", "past_due", "unpaid", "paused", "incomplete"]),
    st.booleans(),
    st.none() | DAYS,
    st.none() | DAYS,
)
ENDED = replace(BEGUN, status="canceled", ended_at=NOW)


@given(st.lists(RUNNING, min_size=1, max_size=8), st.booleans(), st.booleans())
def test_what_is_read_twice_is_told_once(reads: list[Subscription], quiet: bool, ends: bool) -> None:
    before, told, ended = None, Told(), 0
    for read in [*reads, ENDED, ENDED] if ends else reads:
        new, told = due(before, read, told, NOW, quiet=quiet)
        again, same = due(read, read, told, NOW, quiet=quiet)
        assert (again.trial_end, again.scheduled_end, again.ended, same) == (None, None, None, told)
        if new.trial_end is not None:
            assert NOW < new.trial_end <= NOW + TRIAL_NOTICE
        if new.scheduled_end is not None:
            assert read.ends_by_itself
        ended += new.ended is not None
        before = read
    assert ended == (1 if ends and reads[-1].live else 0)


@given(RUNNING)
def test_what_happened_before_it_was_ours_is_told_only_where_it_lies_ahead(read: Subscription) -> None:
    new, _ = due(None, read, Told(), NOW, quiet=True)
    assert new.scheduled_end is None
    assert new.ended is None
    assert due(None, ENDED, Told(), NOW)[0].ended is None
