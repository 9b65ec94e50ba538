"""Claims about `resolve`: CONTRACT.md "Status → tier", and DESIGN §11.11."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.catalog import load_catalog
from services.billing.catalog.model import STATUSES
from services.billing.domain.entitlement import Entitlement, new_account, resolve
from services.billing.domain.subscription import Subscription, current

CATALOG = load_catalog(Path("catalogs/skytale.yaml"))
TIERS = {"price_pro": "pro"}
NOW = datetime(2026, 3, 1, tzinfo=UTC)
FREE = new_account("acct_1", CATALOG)


def subscription(status: str = "active", number: int = 1, price: str = "price_pro", age: int = 0) -> Subscription:
    begin = NOW - timedelta(days=age)
    return Subscription(
        id=f"sub_{number}",
        customer_id="cus_1",
        status=status,
        price_id=price,
        lookup_key="",
        interval="month",
        create_time=begin,
        anchor=begin,
        period_start=begin,
        period_end=begin + timedelta(days=31),
        cancel_at_period_end=False,
        cancel_at=None,
        canceled_at=None,
        ended_at=None,
        trial_end=None,
    )


def settled(*subscriptions: Subscription, prior: Entitlement = FREE, last_paid: str = "") -> Entitlement:
    return resolve(CATALOG, prior, list(subscriptions), TIERS, last_paid).entitlement


@pytest.mark.parametrize(
    ("status", "tier"),
    [
        ("trialing", "pro"),
        ("active", "pro"),
        ("past_due", "pro"),
        ("unpaid", "free"),
        ("paused", "free"),
        ("incomplete", "free"),
        ("incomplete_expired", "free"),
        ("canceled", "free"),
    ],
)
def test_after_paying_each_status_leads_to_skytales_tier(status: str, tier: str) -> None:
    paid = settled(subscription("active"))
    assert settled(subscription(status), prior=paid).tier == tier


def test_without_a_subscription_the_tier_is_the_default_and_nothing_changes() -> None:
    assert settled() == FREE


def test_a_price_by_the_week_has_no_billing_period_here_and_raises_an_alert() -> None:
    """Who follows computes periods by months and years: another word would be an event that nobody can read."""
    weekly = replace(subscription(), interval="week")
    found = resolve(CATALOG, FREE, [weekly], TIERS)
    assert (found.entitlement.tier, found.entitlement.period_interval) == ("pro", "")
    assert found.entitlement.period_anchor is None
    assert found.entitlement.period_end == weekly.period_end
    assert found.alerts == ("unknown_interval",)


def test_keep_falls_back_to_the_last_paid_price_when_active_was_never_seen() -> None:
    assert settled(subscription("past_due"), last_paid="price_pro").tier == "pro"


def test_keep_of_a_new_subscription_does_not_keep_what_an_old_one_granted() -> None:
    paid = settled(subscription("active", number=1))
    assert settled(subscription("past_due", number=2), prior=paid).tier == "free"


def test_an_unknown_price_never_lowers_a_tier_and_raises_an_alert() -> None:
    paid = settled(subscription("active"))
    resolution = resolve(CATALOG, paid, [subscription("active", price="price_odd")], TIERS)
    assert resolution.entitlement.tier == "pro"
    assert "unknown_price" in resolution.alerts


def test_a_late_deleted_of_an_old_subscription_leaves_the_new_one_in_force() -> None:
    old = replace(subscription("canceled", number=1, age=90), ended_at=NOW - timedelta(days=30))
    assert settled(old, subscription("active", number=2)).subscription_id == "sub_2"
    assert settled(old, subscription("active", number=2)).tier == "pro"


def test_two_live_subscriptions_raise_an_alert() -> None:
    resolution = resolve(CATALOG, FREE, [subscription(number=1), subscription(number=2)], TIERS)
    assert "second_live_subscription" in resolution.alerts


def test_cancelling_is_told_by_the_flag_and_by_cancel_at() -> None:
    live = subscription()
    assert not settled(live).cancel_at_period_end
    assert settled(replace(live, cancel_at_period_end=True)).cancel_at_period_end
    assert settled(replace(live, cancel_at=live.period_end)).cancel_at_period_end
    assert not settled(replace(live, cancel_at=live.period_end + timedelta(days=40))).cancel_at_period_end


def test_ids_are_kept_after_the_end() -> None:
    ended = settled(subscription("canceled"), prior=settled(subscription("active")))
    assert (ended.subscription_id, ended.status, ended.period_end) == ("sub_1", "canceled", None)


statuses = st.sampled_from(STATUSES)
subscriptions = st.lists(
    st.builds(
        subscription,
        status=statuses,
        number=st.integers(1, 4),
        price=st.sampled_from(["price_pro", "price_odd"]),
        age=st.integers(0, 400),
    ),
    max_size=4,
    unique_by=lambda s: s.id,
)


@given(subscriptions, st.randoms())
def test_the_order_in_which_subscriptions_are_listed_changes_nothing(
    listed: list[Subscription], random: object
) -> None:
    shuffled = list(listed)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert current(shuffled) == current(listed)
    assert settled(*shuffled) == settled(*listed)


@given(subscriptions)
def test_resolving_again_changes_nothing_and_costs_no_version(listed: list[Subscription]) -> None:
    once = settled(*listed)
    assert settled(*listed, prior=once) == once


@given(subscriptions, subscriptions)
def test_a_version_grows_by_one_exactly_when_something_changed(
    before: list[Subscription], after: list[Subscription]
) -> None:
    first = settled(*before)
    second = settled(*after, prior=first)
    assert second.version - first.version == (0 if second.same_as(first) else 1)


@given(subscriptions)
def test_the_current_subscription_is_live_whenever_any_is(listed: list[Subscription]) -> None:
    chosen = current(listed)
    assert (chosen is not None) == bool(listed)
    if any(s.live for s in listed):
        assert chosen is not None
        assert chosen.live
