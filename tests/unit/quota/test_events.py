"""Billing's messages: what is shared becomes the plan, what is not stays with the account."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.quota.domain import Kind, Period
from services.quota.events import to_plan, to_snapshot
from tollway.billing.v1 import entitlement_pb2


def message(account_id: str = "acct_a", **changes: Any) -> entitlement_pb2.Entitlements:
    limit = entitlement_pb2.Limit(
        name="messages",
        meters=["messages"],
        kind=entitlement_pb2.LIMIT_KIND_QUOTA,
        limit=100,
        period=entitlement_pb2.PERIOD_BILLING,
    )
    result = entitlement_pb2.Entitlements(
        account_id=account_id,
        version=3,
        tier="free",
        meters=[entitlement_pb2.Meter(name="messages")],
        limits=[limit],
        gates={"live": True, "beta": False},
    )
    for name, value in changes.items():
        setattr(result, name, value)
    return result


def test_accounts_of_one_tier_share_one_plan() -> None:
    one = message(version=1, status="active", catalog_hash="x")
    one.period_anchor.CopyFrom(Timestamp(seconds=1_700_000_000, nanos=5))
    one.period_interval = "month"
    other = to_snapshot(message("acct_b", version=9))
    first = to_snapshot(one)
    assert first.plan_hash == other.plan_hash
    assert first.anchor == datetime.fromtimestamp(1_700_000_000, UTC)
    assert (other.anchor, other.interval) == (None, "")
    assert to_snapshot(message(tier="pro")).plan_hash != first.plan_hash


def test_a_plan_says_what_billing_sent() -> None:
    plan = to_plan(to_snapshot(message()).plan)
    [limit] = plan.limits_of["messages"]
    assert (limit.kind, limit.period, limit.limit) == (Kind.QUOTA, Period.BILLING, 100)
    assert (limit.refusal.reason, limit.refusal.http_status) == ("messages_exceeded", 402)
    assert plan.gates == {"live": True, "beta": False}


@pytest.mark.parametrize("changes", [{"account_id": ""}, {"version": 0}, {"period_interval": "week"}])
def test_what_cannot_be_acted_on_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"account|interval"):
        to_snapshot(message(**changes))


@pytest.mark.parametrize("name", ["", "a\x1db", "a\x00"])
def test_a_limit_whose_name_cannot_be_stored_is_refused(name: str) -> None:
    odd = message()
    odd.limits[0].name = name
    with pytest.raises(ValueError, match="name"):
        to_snapshot(odd)


def test_a_rate_has_its_window_and_its_scope() -> None:
    burst = message()
    rate = burst.limits.add(name="burst", meters=["messages"], kind=entitlement_pb2.LIMIT_KIND_RATE, limit=20)
    rate.window.FromSeconds(60)
    rate.scope = entitlement_pb2.RATE_SCOPE_KEY
    first, second = to_plan(to_snapshot(burst).plan).limits_of["messages"]
    assert (first.name, first.kind, first.window, first.per_key) == ("burst", Kind.RATE, timedelta(seconds=60), True)
    assert (first.refusal.http_status, second.window, second.per_key) == (429, None, False)
    rate.ClearField("window")
    with pytest.raises(ValueError, match="window"):
        to_snapshot(burst)


def test_an_unknown_kind_of_limit_is_refused_rather_than_left_out() -> None:
    strange = message()
    strange.limits[0].kind = entitlement_pb2.LIMIT_KIND_UNSPECIFIED
    with pytest.raises(ValueError, match="kind"):
        to_snapshot(strange)


def test_prices_allowances_warnings_and_what_to_do_without_the_store_reach_the_plan() -> None:
    sold = message()
    [meter] = sold.meters
    meter.overage_unit_price, meter.currency, meter.included_units = "0.1", "usd", 1000
    meter.on_store_down = entitlement_pb2.ON_STORE_DOWN_ALLOW
    sold.limits[0].warn_percent.extend([100, 80, 80])
    slots = sold.limits.add(name="slots", meters=["messages"], kind=entitlement_pb2.LIMIT_KIND_CONCURRENCY, limit=25)
    slots.window.FromSeconds(600)
    sold.allowances["models"] = 5
    plan = to_plan(to_snapshot(sold).plan)
    found = plan.meters["messages"]
    assert (found.overage_unit_price, found.currency, found.included_units) == ("0.1", "usd", 1000)
    assert found.on_store_down_allow
    assert not to_plan(to_snapshot(message()).plan).meters["messages"].on_store_down_allow
    assert plan.allowances == {"models": 5}
    rules = plan.rules["messages"]
    assert (rules.sold, rules.warned, rules.counted[0].warn_percent) == (True, True, (80, 100))
    assert [(each.name, each.window) for each in rules.slots] == [("slots", timedelta(minutes=10))]


@pytest.mark.parametrize("price", ["x", "-1", "1e3", "1.", "NaN"])
def test_a_price_that_is_no_decimal_is_not_believed(price: str) -> None:
    odd = message()
    odd.meters[0].overage_unit_price = price
    with pytest.raises(ValueError, match="price"):
        to_snapshot(odd)
