"""Webhook endpoints: where events go. Sending is `deliverer`."""

from __future__ import annotations

from . import API_VERSION, ids
from .context import Context
from .errors import invalid
from .fields import apply, merged_metadata
from .lists import page
from .params import array, boolean, metadata, text, url
from .routing import delete, get, listing, post
from .store import Json, Store

_SHARED = {"url": url, "enabled_events": array(text), "description": text, "metadata": metadata}


def _make(created: int, address: str, enabled_events: list[str], secret: str, **more: object) -> Json:
    return {
        "id": ids.new("we"),
        "object": "webhook_endpoint",
        "api_version": None,
        "application": None,
        "created": created,
        "description": None,
        "enabled_events": enabled_events,
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": address,
        "_secret": secret,
        **more,
    }


def preset(store: Store, address: str, secret: str, created: int) -> None:
    """The endpoint given at start, the same one after each restart."""
    for endpoint in store.all("webhook_endpoint"):
        if endpoint.get("_preset"):
            store.put(endpoint | {"url": address, "_secret": secret})
            return
    store.put(_make(created, address, ["*"], secret, _preset=True))


@post("/v1/webhook_endpoints", {**_SHARED, "api_version": text, "connect": boolean}, ["url", "enabled_events"])
def create(ctx: Context, params: Json) -> Json:
    if not params["enabled_events"]:
        raise invalid("You must enable at least one event.", "enabled_events")
    if params.get("api_version") not in (None, API_VERSION):
        raise invalid(f"Invalid API version. This sandbox speaks {API_VERSION}.", "api_version")
    endpoint = _make(ctx.now(), params["url"], params["enabled_events"], ids.new("whsec"))
    endpoint |= {
        "api_version": params.get("api_version"),
        "description": params.get("description"),
        "metadata": merged_metadata({}, params.get("metadata") or {}),
    }
    ctx.create(endpoint)
    # Shown once, as Stripe does.
    return endpoint | {"secret": endpoint["_secret"]}


@get("/v1/webhook_endpoints/{endpoint}")
def retrieve(ctx: Context, params: Json, endpoint: str) -> Json:
    return ctx.need(endpoint, "webhook_endpoint")


@post("/v1/webhook_endpoints/{endpoint}", {**_SHARED, "disabled": boolean})
def update(ctx: Context, params: Json, endpoint: str) -> Json:
    found = ctx.need(endpoint, "webhook_endpoint")
    after = apply(found, params, ("url", "enabled_events", "description"))
    if params.get("disabled") is not None:
        after["status"] = "disabled" if params["disabled"] else "enabled"
    return ctx.save(after)


@listing("/v1/webhook_endpoints")
def listed(ctx: Context, params: Json) -> Json:
    return page(ctx, "webhook_endpoint", params, "/v1/webhook_endpoints")


@delete("/v1/webhook_endpoints/{endpoint}")
def remove(ctx: Context, params: Json, endpoint: str) -> Json:
    ctx.need(endpoint, "webhook_endpoint")
    ctx.store.remove(endpoint)
    # What is on its way to it has nowhere to go any more.
    ctx.store.db.execute(
        "UPDATE deliveries SET status = 'failed' WHERE endpoint = ? AND status = 'pending'", (endpoint,)
    )
    return {"id": endpoint, "object": "webhook_endpoint", "deleted": True}
