"""Test clocks: a time of their own for some customers, moved forward by hand."""

from __future__ import annotations

from . import ids
from .context import Context
from .errors import ApiError, invalid
from .lists import page
from .params import integer, text
from .periods import DAY, step
from .routing import delete, get, listing, post
from .store import Json


@post("/v1/test_helpers/test_clocks", {"frozen_time": integer, "name": text}, ["frozen_time"])
def create(ctx: Context, params: Json) -> Json:
    clock: Json = {
        "id": ids.new("clock"),
        "object": "test_helpers.test_clock",
        "created": ctx.now(),
        "deletes_after": ctx.now() + 30 * DAY,
        "frozen_time": params["frozen_time"],
        "livemode": False,
        "name": params.get("name"),
        "status": "ready",
        "status_details": {},
    }
    return ctx.create(clock, "test_helpers.test_clock.created")


@get("/v1/test_helpers/test_clocks/{clock}")
def retrieve(ctx: Context, params: Json, clock: str) -> Json:
    return ctx.need(clock, "test_helpers.test_clock")


@listing("/v1/test_helpers/test_clocks")
def listed(ctx: Context, params: Json) -> Json:
    return page(ctx, "test_helpers.test_clock", params, "/v1/test_helpers/test_clocks")


@delete("/v1/test_helpers/test_clocks/{clock}")
def remove(ctx: Context, params: Json, clock: str) -> Json:
    """Deletes the clock, and with it its customers and what is theirs."""
    found = ctx.need(clock, "test_helpers.test_clock")
    for customer in [c for c in ctx.store.all("customer") if c["test_clock"] == clock]:
        for subscription in ctx.store.all("subscription", customer=customer["id"]):
            ctx.store.remove(subscription["id"])
        ctx.store.set_setting(f"deleted:{customer['id']}", True)
        ctx.store.remove(customer["id"])
    ctx.store.db.execute("DELETE FROM jobs WHERE clock = ?", (clock,))
    ctx.store.remove(clock)
    ctx.emit("test_helpers.test_clock.deleted", found)
    return {"id": clock, "object": "test_helpers.test_clock", "deleted": True}


@post("/v1/test_helpers/test_clocks/{clock}/advance", {"frozen_time": integer}, ["frozen_time"])
def advance(ctx: Context, params: Json, clock: str) -> Json:
    """Starts to move the clock; it is `advancing` until all work up to the new time is done."""
    found = ctx.need(clock, "test_helpers.test_clock")
    target = params["frozen_time"]
    if found["status"] != "ready":
        raise ApiError("This test clock is advancing. Wait until its status is ready.", status=429, code="lock_timeout")
    if target <= found["frozen_time"]:
        raise invalid("frozen_time must be later than the clock's current frozen_time.", "frozen_time")
    limit = _furthest(ctx, clock, found["frozen_time"])
    if limit is not None and target > limit:
        raise invalid(
            "A test clock can be advanced by at most two intervals of its shortest subscription at a time.",
            "frozen_time",
            "test_clock_advance_too_far",
        )
    ctx.clocks.append(clock)
    return ctx.save(
        found | {"status": "advancing", "status_details": {"advancing": {"target_frozen_time": target}}},
        "test_helpers.test_clock.advancing",
    )


def _furthest(ctx: Context, clock: str, now: int) -> int | None:
    limits: list[int] = []
    for subscription in ctx.store.all("subscription"):
        if subscription["test_clock"] != clock or subscription["ended_at"] is not None:
            continue
        for item in subscription["items"]["data"]:
            recurring = item["price"]["recurring"]
            limits.append(step(now, recurring["interval"], 2 * recurring["interval_count"]))
    return min(limits) if limits else None


def arrived(ctx: Context, clock: str, *, failed: bool) -> None:
    found = ctx.need(clock, "test_helpers.test_clock")
    status = "internal_failure" if failed else "ready"
    ctx.save(found | {"status": status, "status_details": {}}, f"test_helpers.test_clock.{status}")
