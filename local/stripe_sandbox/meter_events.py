"""Meter events: uses told to Stripe, each once by its identifier, and what they add up to.

They have a table of their own: a product sends many, and they are only ever summed.
"""

from __future__ import annotations

import re
from decimal import Decimal

from . import events, ids, meters
from .context import Context
from .errors import invalid, missing
from .params import choice, integer, mapping, record, text
from .periods import DAY
from .routing import post
from .store import Json, Store

# https://docs.stripe.com/api/billing/meter-event/create: how far a timestamp may lie from now, and for how long an
# identifier is known.
PAST_SECONDS = 35 * DAY
AHEAD_SECONDS = 5 * 60
KNOWN_SECONDS = DAY
ERROR_REPORT = "v1.billing.meter.error_report_triggered"

Row = tuple[int, str]  # unix seconds, decimal text


@post(
    "/v1/billing/meter_events",
    {"event_name": text, "identifier": text, "payload": mapping, "timestamp": integer},
    ["event_name", "payload"],
)
def create(ctx: Context, params: Json) -> Json:
    """Takes an event. What the payload says is validated afterwards: a wrong one is reported, not refused."""
    payload = params["payload"]
    for key, value in payload.items():
        if not isinstance(value, str) or len(key) > 40 or len(value) > 100:
            raise invalid("Payload values are strings of at most 100 characters.", f"payload[{key}]")
    meter = meters.by_event_name(ctx, params["event_name"])
    key = meter["customer_mapping"]["event_payload_key"] if meter else "stripe_customer_id"
    customer = ctx.store.get(payload.get(key, ""), "customer")
    now = ctx.now_of(customer)
    at = now if params.get("timestamp") is None else params["timestamp"]
    if at < now - PAST_SECONDS:
        raise invalid(
            "The timestamp must be within the past 35 calendar days.", "timestamp", "timestamp_too_far_in_past"
        )
    if at > now + AHEAD_SECONDS:
        raise invalid("The timestamp must be at most 5 minutes in the future.", "timestamp", "timestamp_in_future")
    identifier = params.get("identifier") or ids.new("mevt")
    if len(identifier) > 100:
        raise invalid("Identifiers have at most 100 characters.", "identifier")
    _require_new(ctx.store, identifier, now)
    problem, value = _validated(meter, customer, payload)
    ctx.store.db.execute(
        "INSERT INTO meter_events (identifier, event_name, customer, at, value, created, problem)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (identifier, params["event_name"], customer and customer["id"], at, str(value), now, problem),
    )
    if problem is not None:
        _report(ctx, meter, problem, identifier, now)
    return {
        "object": "billing.meter_event",
        "created": now,
        "event_name": params["event_name"],
        "identifier": identifier,
        "livemode": False,
        "payload": payload,
        "timestamp": at,
    }


def _require_new(store: Store, identifier: str, now: int) -> None:
    row = store.db.execute(
        "SELECT 1 FROM meter_events WHERE identifier = ? AND created > ? LIMIT 1", (identifier, now - KNOWN_SECONDS)
    ).fetchone()
    if row is not None:
        raise invalid(f"An event already exists with identifier {identifier}.", "identifier", "resource_already_exists")


def _validated(meter: Json | None, customer: Json | None, payload: Json) -> tuple[str | None, Decimal]:
    """The problem, if there is one, by the code that Stripe reports it with; and the event's value."""
    if meter is None:
        return "no_meter", Decimal(0)
    if meter["customer_mapping"]["event_payload_key"] not in payload:
        return "meter_event_no_customer_defined", Decimal(0)
    if customer is None:
        return "meter_event_customer_not_found", Decimal(0)
    key = meter["value_settings"]["event_payload_key"]
    if meter["default_aggregation"]["formula"] == "count" and key not in payload:
        return None, Decimal(1)
    if key not in payload:
        return "meter_event_value_not_found", Decimal(0)
    if not re.fullmatch(r"-?\d{1,15}(\.\d{1,12})?", payload[key]):
        return "meter_event_invalid_value", Decimal(0)
    return None, Decimal(payload[key])


def _report(ctx: Context, meter: Json | None, problem: str, identifier: str, now: int) -> None:
    """A thin event, for endpoints that name its type: others could not read it."""
    ctx.deliveries += events.announce_thin(
        ctx.store,
        ERROR_REPORT if meter is not None else "v1.billing.meter.no_meter_found",
        created=now,
        related=meter and {"id": meter["id"], "type": "billing.meter", "url": f"/v1/billing/meters/{meter['id']}"},
        data={
            "developer_message_summary": f"There is 1 invalid event: {problem}",
            "reason": {
                "error_count": 1,
                "error_types": [
                    {
                        "code": problem,
                        "error_count": 1,
                        "sample_errors": [{"error_message": problem, "request": {"identifier": identifier}}],
                    }
                ],
            },
            "validation_start": events.rfc3339(now),
            "validation_end": events.rfc3339(now),
        },
    )


@post(
    "/v1/billing/meter_event_adjustments",
    {"event_name": text, "type": choice("cancel"), "cancel": record({"identifier": text}, required=["identifier"])},
    ["event_name", "type", "cancel"],
)
def adjust(ctx: Context, params: Json) -> Json:
    """Takes an event of the last 24 hours back."""
    identifier = params["cancel"]["identifier"]
    done = ctx.store.db.execute(
        "UPDATE meter_events SET problem = 'cancelled' WHERE identifier = ? AND event_name = ? AND problem IS NULL",
        (identifier, params["event_name"]),
    )
    if done.rowcount == 0:
        raise missing("billing.meter_event", identifier, "cancel[identifier]", 400)
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": params["event_name"],
        "livemode": False,
        "status": "complete",
        "type": "cancel",
    }


def events_of(store: Store, meter: Json, customer: str, start: int, end: int) -> list[Row]:
    """The valid events of a customer with start ≤ time < end, oldest first."""
    return store.db.execute(
        "SELECT at, value FROM meter_events WHERE event_name = ? AND customer = ? AND at >= ? AND at < ?"
        " AND problem IS NULL ORDER BY at, rowid",
        (meter["event_name"], customer, start, end),
    ).fetchall()


def aggregate(meter: Json, rows: list[Row]) -> Decimal:
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return Decimal(len(rows))
    if formula == "last":
        return Decimal(rows[-1][1]) if rows else Decimal(0)
    return sum((Decimal(value) for _, value in rows), Decimal(0))


def used(ctx: Context, price: Json, customer: str, start: int, end: int) -> Decimal:
    """The units of a metered price that a customer used in start ≤ time < end; never less than none."""
    meter = ctx.need(price["recurring"]["meter"], "billing.meter")
    return max(Decimal(0), aggregate(meter, events_of(ctx.store, meter, customer, start, end)))
