"""Events: what happened, snapshot and all, kept for ever and sent to every endpoint that asked for the type."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import API_VERSION, ids
from .errors import ApiError
from .lists import INCLUDED_ON_REQUEST, page
from .params import array, boolean, text
from .routing import get, listing, post
from .store import Json, Store, public

if TYPE_CHECKING:
    from .context import Context

_MISSING = object()


def difference(before: Json, after: Json) -> Json:
    """The earlier values of what changed, nested objects reduced to what changed in them (`previous_attributes`)."""
    changed: Json = {}
    for key in before.keys() | after.keys():
        if key.startswith("_"):
            continue
        old, new = before.get(key, _MISSING), after.get(key, _MISSING)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and old.get("object") != "list":
            inner = difference(old, new)
            if inner:
                changed[key] = inner
        else:
            changed[key] = None if old is _MISSING else old
    return changed


def announce(
    store: Store,
    event_type: str,
    obj: Json,
    *,
    created: int,
    previous: Json | None,
    request_id: str | None,
    idempotency_key: str | None,
) -> list[int]:
    """Stores the event with a pending delivery for each endpoint that wants it; returns the deliveries' ids."""
    data: Json = {"object": snapshot(obj)}
    if previous is not None:
        data["previous_attributes"] = previous
    event: Json = {
        "id": ids.new("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": created,
        "data": data,
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": request_id, "idempotency_key": idempotency_key},
        "type": event_type,
    }
    store.put(event)
    return enqueue(store, event)


def announce_thin(store: Store, event_type: str, *, created: int, related: Json | None, data: Json) -> list[int]:
    """A thin event (https://docs.stripe.com/event-destinations#thin-events), sent to endpoints that name its type."""
    event: Json = {
        "id": ids.new("evt_test"),
        "object": "v2.core.event",
        "type": event_type,
        "livemode": False,
        "created": rfc3339(created),
        "context": None,
        "related_object": related,
        "data": data,
    }
    wanting = [
        e["id"] for e in store.all("webhook_endpoint") if event_type in e["enabled_events"] and wants(e, event_type)
    ]
    store.put(event)
    return [delivery for endpoint in wanting for delivery in enqueue(store, event, endpoint)]


def rfc3339(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}.000Z"


def snapshot(obj: Json) -> Json:
    """The object as an event carries it: nothing expanded, nothing of the sandbox's own."""
    return {key: value for key, value in public(obj).items() if key not in INCLUDED_ON_REQUEST.get(obj["object"], ())}


def wants(endpoint: Json, event_type: str) -> bool:
    return endpoint["status"] == "enabled" and bool({"*", event_type} & set(endpoint["enabled_events"]))


def enqueue(store: Store, event: Json, endpoint_id: str | None = None) -> list[int]:
    made: list[int] = []
    for endpoint in store.all("webhook_endpoint"):
        if endpoint_id is not None and endpoint["id"] != endpoint_id:
            continue
        if endpoint_id is None and not wants(endpoint, event["type"]):
            continue
        row = store.db.execute(
            "INSERT INTO deliveries (event, endpoint, status, next_at) VALUES (?, ?, 'pending', ?)",
            (event["id"], endpoint["id"], time.time()),
        )
        made.append(int(row.lastrowid or 0))
    return made


def pending(store: Store, event_id: str) -> int:
    """How many deliveries of the event have not succeeded yet."""
    row = store.db.execute(
        "SELECT count(DISTINCT endpoint) FROM deliveries d WHERE event = ? AND NOT EXISTS (SELECT 1 FROM deliveries o"
        " WHERE o.event = d.event AND o.endpoint = d.endpoint AND o.status = 'succeeded')",
        (event_id,),
    ).fetchone()
    return int(row[0])


def as_sent(store: Store, event: Json) -> Json:
    """A snapshot event whole; of a thin one what tells where to look."""
    if event["object"] == "event":
        return event | {"pending_webhooks": pending(store, event["id"])}
    return {key: value for key, value in event.items() if key != "data"}


def _shown(ctx: Context, event: Json) -> Json:
    return event | {"pending_webhooks": pending(ctx.store, event["id"])}


@get("/v1/events/{event}")
def retrieve(ctx: Context, params: Json, event: str) -> Json:
    return _shown(ctx, ctx.need(event, "event"))


@listing("/v1/events", {"type": text, "types": array(text), "delivery_success": boolean})
def listed(ctx: Context, params: Json) -> Json:
    if params.get("type") and params.get("types"):
        raise ApiError("You may only specify one of these parameters: type, types.", param="types")
    where: list[tuple[str, list[Any]]] = []
    names = [params["type"]] if params.get("type") else params.get("types") or []
    if names:
        tests = ["ref LIKE ?" if name.endswith("*") else "ref = ?" for name in names]
        where.append(
            (f"({' OR '.join(tests)})", [name.replace("*", "%") if name.endswith("*") else name for name in names])
        )
    if params.get("delivery_success") is not None:
        delivered = (
            "EXISTS (SELECT 1 FROM deliveries d WHERE d.event = objects.id AND d.status != 'succeeded' AND NOT EXISTS"
            " (SELECT 1 FROM deliveries o WHERE o.event = d.event AND o.endpoint = d.endpoint"
            " AND o.status = 'succeeded'))"
        )
        where.append((f"NOT {delivered}" if params["delivery_success"] else delivered, []))
    found = page(ctx, "event", params, "/v1/events", where)
    found["data"] = [_shown(ctx, event) for event in found["data"]]
    return found


@get("/v2/core/events/{event}")
def retrieve_thin(ctx: Context, params: Json, event: str) -> Json:
    return ctx.need(event, "v2.core.event")


@post("/v1/events/{event}/retry", {"webhook_endpoint": text}, lenient=True)
def resend(ctx: Context, params: Json, event: str) -> Json:
    """Sends an event again, as `stripe events resend` asks: to one endpoint, or to all that want its type."""
    found = ctx.need(event, "event")
    endpoint = params.get("webhook_endpoint")
    if endpoint:
        ctx.need(endpoint, "webhook_endpoint", param="webhook_endpoint")
    ctx.deliveries += enqueue(ctx.store, found, endpoint)
    return _shown(ctx, found)
