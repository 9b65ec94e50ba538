"""Usage as bars: each meter with its quotas, rates, cap and concurrency, and what is held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.pages import words
from tollway.billing.v1 import entitlement_pb2 as ent
from tollway.quota.v1 import quota_pb2 as quota

NEAR = 80  # percent: from here on a bar warns
_PERIODS = {ent.PERIOD_MONTH: "this month", ent.PERIOD_BILLING: "this billing period", ent.PERIOD_LIFETIME: "in all"}


@dataclass(frozen=True)
class Bar:
    """One limit. `percent` is None when it has no number."""

    id: str
    title: str
    used: int
    limit: int | None
    percent: int | None
    level: str  # calm, near, full
    said: str  # the numbers in words
    reset: Timestamp | None
    note: str = ""


@dataclass(frozen=True)
class Cap:
    """The account's own cap on a meter, as the form shows it."""

    meter: str
    title: str
    limit: int | None
    auto_stop: bool


@dataclass(frozen=True)
class Meter:
    name: str
    title: str
    bars: list[Bar]
    notes: list[str]
    cap: Cap | None
    closed: str  # why it cannot be used at all; empty: it can


@dataclass(frozen=True)
class Usage:
    meters: list[Meter]
    shared: list[Bar]  # limits that span several meters
    held: list[Bar]

    @property
    def caps(self) -> list[Cap]:
        return [meter.cap for meter in self.meters if meter.cap is not None]


def read(entitled: ent.Entitlements, used: quota.GetUsageResponse) -> Usage:
    """What the page shows of the plan's limits and of their use."""
    limits = {limit.name: limit for limit in entitled.limits}
    states = {state.name: state for meter in used.meters for state in meter.limits}
    spanning = [limit for limit in entitled.limits if len(limit.meters) > 1]
    shared = [bar for limit in spanning if (bar := _bar(limit, states.get(limit.name))) is not None]
    # Of what the plan does not have, and nothing is held, there is nothing to say.
    held = [_held(state) for state in used.allowances if state.held or not state.HasField("limit") or state.limit]
    return Usage([_meter(meter, limits, used.meters, entitled) for meter in entitled.meters], shared, held)


def _meter(
    meter: ent.Meter,
    limits: Mapping[str, ent.Limit],
    used: Iterable[quota.MeterUsage],
    entitled: ent.Entitlements,
) -> Meter:
    usage = next((each for each in used if each.meter == meter.name), quota.MeterUsage(meter=meter.name))
    states = {state.name: state for state in usage.limits}
    own = [limit for limit in limits.values() if list(limit.meters) == [meter.name]]
    bars = [bar for limit in own if (bar := _bar(limit, states.get(limit.name))) is not None]
    cap = next((limit for limit in own if limit.kind == ent.LIMIT_KIND_CAP), None)
    if not any(limit.kind in {ent.LIMIT_KIND_QUOTA, ent.LIMIT_KIND_CAP} for limit in own):
        bars.insert(0, _counted(usage))
    closed = ""
    if meter.gate and not entitled.gates[meter.gate]:
        closed = meter.gate_refusal.detail
    return Meter(
        name=meter.name,
        title=words.label(meter.name),
        bars=bars,
        notes=_notes(meter, own, states),
        cap=_cap(meter, cap, states.get(cap.name)) if cap is not None and not closed else None,
        closed=closed,
    )


def _bar(limit: ent.Limit, state: quota.LimitState | None) -> Bar | None:
    """None for what is said in words, or is only counted."""
    if limit.kind == ent.LIMIT_KIND_RATE:
        return None
    numbered = state is not None and state.HasField("limit")
    if limit.period == ent.PERIOD_LIFETIME and not numbered:
        return None
    used = state.used if state is not None else 0
    number = state.limit if state is not None and numbered else None
    return Bar(
        id=limit.name.replace("_", "-"),
        title=_title(limit),
        used=used,
        limit=number,
        percent=_percent(used, number),
        level=_level(used, number),
        said=_said(used, number),
        reset=state.reset_time if state is not None and _resets(limit, state) else None,
        note="Your own cap: it warns and refuses nothing." if state and _warns_only(limit, state) else "",
    )


def _title(limit: ent.Limit) -> str:
    if limit.kind == ent.LIMIT_KIND_CONCURRENCY:
        return "Active at once"
    if limit.kind == ent.LIMIT_KIND_CAP:
        return f"Used {_PERIODS.get(limit.period, '')}".strip()
    period = _PERIODS.get(limit.period, "")
    if len(limit.meters) > 1:
        return f"{words.label(limit.name)} {period}".strip()
    return f"Used {period}".strip()


def _resets(limit: ent.Limit, state: quota.LimitState) -> bool:
    return limit.kind != ent.LIMIT_KIND_CONCURRENCY and state.HasField("reset_time")


def _warns_only(limit: ent.Limit, state: quota.LimitState) -> bool:
    return limit.kind == ent.LIMIT_KIND_CAP and state.HasField("limit") and not state.auto_stop


def _counted(usage: quota.MeterUsage) -> Bar:
    """A meter without a quota: counted all the same."""
    reset = usage.reset_time if usage.HasField("reset_time") else None
    return Bar(f"{usage.meter}-used", "Used", usage.used, None, None, "calm", _said(usage.used, None), reset)


def _held(state: quota.AllowanceState) -> Bar:
    limit = state.limit if state.HasField("limit") else None
    return Bar(
        id=f"held-{state.name}".replace("_", "-"),
        title=words.label(state.name).replace(" gb", " (GB)"),
        used=state.held,
        limit=limit,
        percent=_percent(state.held, limit),
        level=_level(state.held, limit),
        said=_said(state.held, limit),
        reset=None,
    )


def _cap(meter: ent.Meter, limit: ent.Limit, state: quota.LimitState | None) -> Cap:
    number = state.limit if state is not None and state.HasField("limit") else None
    title = f"{words.label(meter.name)} {_PERIODS.get(limit.period, '')}".strip()
    armed = state.auto_stop if state is not None and number is not None else True  # armed by default
    return Cap(meter.name, title, number, armed)


def _notes(meter: ent.Meter, own: Iterable[ent.Limit], states: Mapping[str, quota.LimitState]) -> list[str]:
    notes = []
    for limit in own:
        if limit.kind == ent.LIMIT_KIND_RATE and limit.HasField("limit"):
            notes.append(rate(limit, states.get(limit.name)))
    if meter.overage_unit_price:
        price = words.unit_price(meter.overage_unit_price, meter.currency)
        included = words.number(meter.included_units)
        notes.append(f"{included} included in each billing period, then {price} each.")
    return notes


def rate(limit: ent.Limit, state: quota.LimitState | None = None) -> str:
    """A rate in words; of the account's own with what is used of it now."""
    span = limit.window.seconds
    within = "any minute" if span == 60 else "any second" if span == 1 else f"any {words.number(span)} seconds"
    if limit.scope == ent.RATE_SCOPE_KEY:
        return f"Up to {words.number(limit.limit)} in {within} with each key."
    now = f", {words.number(state.used)} used right now" if state is not None else ""
    return f"Up to {words.number(limit.limit)} in {within}{now}."


def shared_rates(entitled: ent.Entitlements) -> list[str]:
    """Rates over several meters, in words."""
    spanning = (limit for limit in entitled.limits if limit.kind == ent.LIMIT_KIND_RATE and len(limit.meters) > 1)
    return [rate(limit) for limit in spanning if limit.HasField("limit")]


def _percent(used: int, limit: int | None) -> int | None:
    if limit is None:
        return None
    return min(100, used * 100 // limit) if limit else 100


def _level(used: int, limit: int | None) -> str:
    if limit is None:
        return "calm"
    if used >= limit:
        return "full"
    return "near" if used * 100 >= limit * NEAR else "calm"


def _said(used: int, limit: int | None) -> str:
    return f"{words.number(used)} of {words.number(limit)}" if limit is not None else f"{words.number(used)}, unlimited"
