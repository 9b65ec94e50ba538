"""Billing's messages, as quota understands them, and what quota announces."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.quota.domain import (
    Announcement,
    CapReached,
    KillSwitch,
    Kind,
    Limit,
    Meter,
    Period,
    Plan,
    Refusal,
    UsageThresholdReached,
)
from services.quota.domain.plan import SUSPENDED
from tollway.billing.v1 import entitlement_pb2
from tollway.quota.v1 import events_pb2

_PERIODS = {
    entitlement_pb2.PERIOD_MONTH: Period.MONTH,
    entitlement_pb2.PERIOD_BILLING: Period.BILLING,
    entitlement_pb2.PERIOD_LIFETIME: Period.LIFETIME,
    # Billing names a period for every quota and cap; the calendar month is the contract's default.
    entitlement_pb2.PERIOD_UNSPECIFIED: Period.MONTH,
}
_KINDS = {
    entitlement_pb2.LIMIT_KIND_RATE: Kind.RATE,
    entitlement_pb2.LIMIT_KIND_QUOTA: Kind.QUOTA,
    entitlement_pb2.LIMIT_KIND_CAP: Kind.CAP,
    entitlement_pb2.LIMIT_KIND_CONCURRENCY: Kind.CONCURRENCY,
}
_STATUS_OF = {Kind.RATE: 429, Kind.QUOTA: 402, Kind.CAP: 402, Kind.CONCURRENCY: 429}
_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")

LimitEvent = TypeVar("LimitEvent", events_pb2.UsageThresholdReached, events_pb2.CapReached)


@dataclass(frozen=True)
class Snapshot:
    """One account's entitlements as billing sent them, split into its own part and the plan it shares."""

    account_id: str
    version: int
    status: str
    anchor: datetime | None  # UTC, whole seconds
    interval: str  # "month", "year", or empty without a subscription
    change_time: datetime | None
    plan: bytes
    plan_hash: bytes


def to_snapshot(message: entitlement_pb2.Entitlements) -> Snapshot:
    """Raises ValueError for what this release cannot act on."""
    if not message.account_id or message.version < 1:
        raise ValueError("entitlements without an account or a version")
    if message.period_interval not in {"", "month", "year"}:
        raise ValueError(f"a billing interval of {message.period_interval!r}")
    anchor = None
    if message.HasField("period_anchor") and message.period_interval:
        anchor = datetime.fromtimestamp(message.period_anchor.seconds, UTC)
    shared = entitlement_pb2.Entitlements(
        tier=message.tier,
        meters=message.meters,
        limits=message.limits,
        gates=message.gates,
        allowances=message.allowances,
        billing_url=message.billing_url,
        support_contact=message.support_contact,
    )
    plan = shared.SerializeToString(deterministic=True)
    to_plan(plan)  # what cannot be read must not reach the table: it would stop every decision of the account
    return Snapshot(
        account_id=message.account_id,
        version=message.version,
        status=message.status,
        anchor=anchor,
        interval=message.period_interval if anchor else "",
        change_time=message.change_time.ToDatetime(UTC) if message.HasField("change_time") else None,
        plan=plan,
        plan_hash=hashlib.sha256(plan).digest(),
    )


def to_kill_switch_changed(switch: KillSwitch) -> events_pb2.KillSwitchChanged:
    message = events_pb2.KillSwitchChanged(meter=switch.meter, enabled=switch.enabled, reason=switch.reason)
    if switch.change_time is not None:
        message.change_time.FromDatetime(switch.change_time)
    return message


def to_plan(data: bytes) -> Plan:
    """The plan that `Snapshot.plan` holds. Raises ValueError for a kind of limit that this release does not know."""
    message = entitlement_pb2.Entitlements.FromString(data)
    for meter in message.meters:
        if not meter.name.isprintable():
            raise ValueError(f"meter {meter.name!r} has control characters in its name")
        if meter.overage_unit_price and not _DECIMAL.fullmatch(meter.overage_unit_price):
            raise ValueError(f"meter {meter.name!r} has the price {meter.overage_unit_price!r}")
    limits = []
    for limit in message.limits:
        if not limit.name or not limit.name.isprintable():
            raise ValueError(f"a limit has the name {limit.name!r}")
        kind, period = _KINDS.get(limit.kind), _PERIODS.get(limit.period)
        if kind is None or period is None:
            raise ValueError(f"limit {limit.name!r} is of a kind that this release does not know")
        limits.append(
            Limit(
                name=limit.name,
                meters=tuple(limit.meters),
                kind=kind,
                limit=limit.limit if limit.HasField("limit") else None,
                period=period,
                refusal=_refusal(limit.refusal, limit.name, _STATUS_OF[kind]),
                window=limit.window.ToTimedelta() if limit.HasField("window") else None,
                per_key=limit.scope == entitlement_pb2.RATE_SCOPE_KEY,
                warn_percent=tuple(sorted(set(limit.warn_percent))),
            )
        )
    return Plan(
        tier=message.tier,
        meters={meter.name: _meter(meter) for meter in message.meters},
        limits=tuple(limits),
        gates=dict(message.gates),
        billing_url=message.billing_url,
        support_contact=message.support_contact,
        allowances=dict(message.allowances),
    )


def to_event(announcement: Announcement) -> Message:
    """As subscribers get it; its subject is the announcement's account."""
    if isinstance(announcement, UsageThresholdReached):
        threshold = events_pb2.UsageThresholdReached(percent=announcement.percent, tier=announcement.tier)
        return _fill_limit_event(threshold, announcement)
    if isinstance(announcement, CapReached):
        return _fill_limit_event(events_pb2.CapReached(auto_stop=announcement.auto_stop), announcement)
    return events_pb2.UsageRecorded(
        account_id=announcement.account_id,
        meter=announcement.meter,
        used=announcement.used,
        final=announcement.final,
        period_start=_timestamp(announcement.period_start),
        period_end=None if announcement.period_end is None else _timestamp(announcement.period_end),
        record_time=_timestamp(announcement.record_time),
    )


@lru_cache(maxsize=1024)  # totals of thousands of accounts have few times among them
def _timestamp(moment: datetime) -> Timestamp:
    """To be copied, not changed."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _fill_limit_event(message: LimitEvent, announcement: UsageThresholdReached | CapReached) -> LimitEvent:
    message.account_id = announcement.account_id
    message.limit_name = announcement.limit_name
    message.meters.extend(announcement.meters)
    message.used = announcement.used
    message.limit = announcement.limit
    message.period_start.CopyFrom(_timestamp(announcement.period_start))
    if announcement.period_end is not None:
        message.period_end.CopyFrom(_timestamp(announcement.period_end))
    message.reach_time.CopyFrom(_timestamp(announcement.reach_time))
    return message


def _meter(meter: entitlement_pb2.Meter) -> Meter:
    suspended = meter.suspended_refusal if meter.HasField("suspended_refusal") else None
    return Meter(
        meter.name,
        meter.gate,
        _refusal(meter.gate_refusal, meter.gate, 403),
        SUSPENDED if suspended is None else _refusal(suspended, meter.name, 503),
        on_store_down_allow=meter.on_store_down == entitlement_pb2.ON_STORE_DOWN_ALLOW,
        overage_unit_price=meter.overage_unit_price,
        currency=meter.currency,
        included_units=meter.included_units,
    )


def _refusal(message: entitlement_pb2.Refusal, name: str, status: int) -> Refusal:
    return Refusal(
        reason=message.reason or f"{name}_exceeded",
        http_status=message.http_status or status,
        detail=message.detail or f"The limit {name} does not allow this.",
    )
