"""Billing meters: what is counted, from which events, and the sums of it by period."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from . import ids, meter_events
from .context import Context
from .errors import invalid
from .lists import Condition, equals, page
from .params import choice, integer, record, text
from .periods import DAY, HOUR
from .routing import get, listing, post
from .store import Json

_KEY = {"event_payload_key": text}


@post(
    "/v1/billing/meters",
    {
        "customer_mapping": record(
            {"event_payload_key": text, "type": choice("by_id")}, required=["event_payload_key"]
        ),
        "default_aggregation": record({"formula": choice("count", "last", "sum")}, required=["formula"]),
        "display_name": text,
        "event_name": text,
        "event_time_window": choice("day", "hour"),
        "value_settings": record(_KEY, required=_KEY),
    },
    ["default_aggregation", "display_name", "event_name"],
)
def create(ctx: Context, params: Json) -> Json:
    if by_event_name(ctx, params["event_name"]) is not None:
        raise invalid(
            f"An active meter with the event name {params['event_name']} already exists.",
            "event_name",
            "resource_already_exists",
        )
    now = ctx.now()
    meter: Json = {
        "id": ids.new("mtr_test"),
        "object": "billing.meter",
        "created": now,
        "customer_mapping": {
            "event_payload_key": (params.get("customer_mapping") or {}).get("event_payload_key", "stripe_customer_id"),
            "type": "by_id",
        },
        "default_aggregation": params["default_aggregation"],
        "display_name": params["display_name"],
        "event_name": params["event_name"],
        "event_time_window": params.get("event_time_window"),
        "livemode": False,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "updated": now,
        "value_settings": params.get("value_settings") or {"event_payload_key": "value"},
    }
    return ctx.create(meter, "billing.meter.created")


def by_event_name(ctx: Context, name: str) -> Json | None:
    """The active meter of these events."""
    return next((meter for meter in ctx.store.all("billing.meter", ref=name) if meter["status"] == "active"), None)


@get("/v1/billing/meters/{meter}")
def retrieve(ctx: Context, params: Json, meter: str) -> Json:
    return ctx.need(meter, "billing.meter")


@post("/v1/billing/meters/{meter}", {"display_name": text})
def update(ctx: Context, params: Json, meter: str) -> Json:
    before = ctx.need(meter, "billing.meter")
    after = before | {"display_name": params.get("display_name") or before["display_name"], "updated": ctx.now()}
    return ctx.save(after, "billing.meter.updated", before)


@listing("/v1/billing/meters", {"status": choice("active", "inactive")})
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = [equals("status", params["status"])] if params.get("status") else []
    return page(ctx, "billing.meter", params, "/v1/billing/meters", where)


@post("/v1/billing/meters/{meter}/deactivate")
def deactivate(ctx: Context, params: Json, meter: str) -> Json:
    before = ctx.need(meter, "billing.meter")
    now = ctx.now()
    after = before | {"status": "inactive", "status_transitions": {"deactivated_at": now}, "updated": now}
    return ctx.save(after, "billing.meter.deactivated", before)


@post("/v1/billing/meters/{meter}/reactivate")
def reactivate(ctx: Context, params: Json, meter: str) -> Json:
    before = ctx.need(meter, "billing.meter")
    if before["status"] == "inactive" and by_event_name(ctx, before["event_name"]) is not None:
        raise invalid("An active meter with the same event name already exists.", code="resource_already_exists")
    after = before | {"status": "active", "status_transitions": {"deactivated_at": None}, "updated": ctx.now()}
    return ctx.save(after, "billing.meter.reactivated", before)


@listing(
    "/v1/billing/meters/{meter}/event_summaries",
    {"customer": text, "start_time": integer, "end_time": integer, "value_grouping_window": choice("day", "hour")},
)
def summaries(ctx: Context, params: Json, meter: str) -> Json:
    """Sums of a customer's use between two minutes, or for each hour or day that has any; newest first."""
    found = ctx.need(meter, "billing.meter")
    for name in ("customer", "start_time", "end_time"):
        if params.get(name) is None:
            raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
    ctx.need(params["customer"], "customer", param="customer")
    start, end = params["start_time"], params["end_time"]
    window = params.get("value_grouping_window")
    step = {"day": DAY, "hour": HOUR}.get(window or "", 60)
    for name in ("start_time", "end_time"):
        if params[name] % step:
            raise invalid(f"{name} must be aligned with {window or 'minute'} boundaries (UTC).", name)
    if end <= start:
        raise invalid("end_time must be later than start_time.", "end_time")
    edges = range(start, end, step) if window else [start]
    width = step if window else end - start
    if len(edges) > 100_000:
        raise invalid("That are too many windows.", "end_time")
    data: list[Json] = []
    for begin in edges:
        rows = meter_events.events_of(ctx.store, found, params["customer"], begin, begin + width)
        if rows:
            value = meter_events.aggregate(found, rows)
            data.append(_summary(found, value, begin, begin + width))
    data.reverse()
    limit = params.get("limit") or 10
    after = params.get("starting_after")
    if after is not None:
        known = [one["id"] for one in data]
        data = data[known.index(after) + 1 :] if after in known else []
    url = f"/v1/billing/meters/{meter}/event_summaries"
    return {"object": "list", "data": data[:limit], "has_more": len(data) > limit, "url": url}


def _summary(meter: Json, value: Decimal, start: int, end: int) -> Json:
    moment = datetime.fromtimestamp(start, UTC)
    return {
        # The same window has the same id on every page.
        "id": f"mtrusg_test_{meter['id'][-12:]}{moment:%Y%m%d%H%M}{end - start}",
        "object": "billing.meter_event_summary",
        "aggregated_value": float(value),
        "end_time": end,
        "livemode": False,
        "meter": meter["id"],
        "start_time": start,
    }
