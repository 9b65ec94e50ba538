"""The sandbox's own controls, which Stripe has not: the clock, deliveries, faults and settings, under `/_sandbox/`."""

from __future__ import annotations

import json
import re
import time
from random import SystemRandom
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from . import collection, events, lifecycle, taxes
from .sandbox import Sandbox


def sandbox_of(request: Request) -> Sandbox:
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox


def refused(text: str) -> JSONResponse:
    return JSONResponse({"error": text}, 400)


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object sent. Raises ValueError."""
    raw = await request.body()
    value = json.loads(raw or b"{}")
    if not isinstance(value, dict):
        raise ValueError("send a JSON object")  # noqa: TRY004 - callers answer ValueError
    return value


async def healthz(request: Request) -> JSONResponse:
    sandbox_of(request).store.db.execute("SELECT 1 FROM objects LIMIT 1").fetchone()
    return JSONResponse({"status": "ok"})


def _clock(sandbox: Sandbox) -> dict[str, int | None]:
    return {
        "now": sandbox.clock.now(),
        "offset": sandbox.clock.offset(),
        # When the next work of the default clock falls due, or null.
        "next_due": sandbox.store.next_due(None),
    }


async def clock(request: Request) -> JSONResponse:
    return JSONResponse(_clock(sandbox_of(request)))


async def advance_clock(request: Request) -> JSONResponse:
    """`{"seconds": n}` or `{"to": unix seconds}`; answers when all work up to then is done."""
    sandbox = sandbox_of(request)
    try:
        body = await body_of(request)
        seconds, to = body.get("seconds"), body.get("to")
        if set(body) - {"seconds", "to"} or (seconds is None) == (to is None):
            return refused("give either seconds or to")
        amount = seconds if to is None else to
        if type(amount) is not int or abs(amount) > 10**11 or (seconds is not None and seconds < 0):
            return refused("seconds and to are whole seconds; the clock only moves forward")
        await sandbox.timekeeper.advance(amount if to is not None else sandbox.clock.now() + amount)
    except ValueError as error:
        return refused(str(error))
    return JSONResponse(_clock(sandbox))


async def deliveries(request: Request) -> JSONResponse:
    rows = sandbox_of(request).store.db.execute(
        "SELECT d.id, d.event, o.ref, d.endpoint, d.status, d.attempts, d.next_at, d.last_status, d.last_error"
        " FROM deliveries d LEFT JOIN objects o ON o.id = d.event"
        " WHERE d.status != 'succeeded' ORDER BY d.id LIMIT 1000"
    )
    names = ("id", "event", "type", "endpoint", "status", "attempts", "next_at", "last_status", "last_error")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    counts = dict(
        sandbox_of(request).store.db.execute("SELECT status, count(*) FROM deliveries GROUP BY status").fetchall()
    )
    return JSONResponse(
        {
            "counts": {name: counts.get(name, 0) for name in ("pending", "succeeded", "failed", "dropped")},
            "pending": [item for item in found if item["status"] == "pending"],
            "failed": [item for item in found if item["status"] != "pending"],
        }
    )


async def drain(request: Request) -> JSONResponse:
    """Waits until nothing is pending; at most `timeout` seconds, 10 unless told."""
    try:
        timeout = float(request.query_params.get("timeout") or (await body_of(request)).get("timeout", 10))
    except (TypeError, ValueError):
        return refused("timeout is a number of seconds")
    left = await sandbox_of(request).deliverer.drain(min(max(timeout, 0.0), 300.0))
    return JSONResponse({"drained": left == 0, "pending": left})


async def replay(request: Request) -> JSONResponse:
    """Sends every event again to the endpoints that want it: `{"order": "made" | "reversed" | "shuffled"}`, of the
    `types` given or of all. Answers how many deliveries that makes."""
    sandbox = sandbox_of(request)
    try:
        body = await body_of(request)
    except ValueError as error:
        return refused(str(error))
    order, types = body.get("order", "made"), body.get("types")
    if order not in ("made", "reversed", "shuffled") or set(body) - {"order", "types"}:
        return refused("order is made, reversed or shuffled; types is a list of event types")
    if types is not None and not isinstance(types, list):
        return refused("types is a list of event types")
    found = [event for event in sandbox.store.all("event") if types is None or event["type"] in types]
    if order == "reversed":
        found.reverse()
    elif order == "shuffled":
        SystemRandom().shuffle(found)
    now, made = time.time(), 0
    with sandbox.store.transaction():
        for event in found:
            for delivery in events.enqueue(sandbox.store, event):
                # A little apart, so that the order is one although several are sent at once.
                sandbox.store.db.execute(
                    "UPDATE deliveries SET next_at = ? WHERE id = ?", (now + made * _REPLAY_GAP, delivery)
                )
                made += 1
    sandbox.deliverer.wake()
    return JSONResponse({"deliveries": made})


_REPLAY_GAP = 0.003


async def faults(request: Request) -> JSONResponse:
    return JSONResponse(sandbox_of(request).faults.shown())


async def set_faults(request: Request) -> JSONResponse:
    """Sets the knobs given and leaves the others. `{"reset": true}` clears all first."""
    knobs = sandbox_of(request).faults
    try:
        body = await body_of(request)
        if body.pop("reset", False):
            knobs.change(type(knobs)().shown())
        knobs.change(body)
    except ValueError as error:
        return refused(str(error))
    return JSONResponse(knobs.shown())


def _settings(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "business_name": sandbox.store.setting("business_name", "Sandbox"),
        "retry_days": sandbox.store.setting("retry_days", collection.DEFAULT_RETRY_DAYS),
        "end_state": sandbox.store.setting("end_state", collection.DEFAULT_END_STATE),
        "tax_percent": sandbox.store.setting("tax_percent", taxes.DEFAULT_PERCENT),
        "upcoming_days": sandbox.store.setting("upcoming_days", lifecycle.DEFAULT_UPCOMING_DAYS),
    }


async def settings(request: Request) -> JSONResponse:
    return JSONResponse(_settings(sandbox_of(request)))


async def set_settings(request: Request) -> JSONResponse:
    """What Stripe keeps in its dashboard: the business's name, days between retries, and what follows the last."""
    sandbox = sandbox_of(request)
    try:
        body = await body_of(request)
    except ValueError as error:
        return refused(str(error))
    if set(body) - set(_settings(sandbox)):
        return refused(f"unknown setting: {', '.join(sorted(set(body) - set(_settings(sandbox))))}")
    days = body.get("retry_days", [])
    if not isinstance(days, list) or len(days) > 8 or not all(type(day) is int and 1 <= day <= 30 for day in days):
        return refused("retry_days is a list of at most 8 whole numbers of days, 1 to 30")
    if body.get("end_state", "cancel") not in ("cancel", "unpaid", "past_due"):
        return refused("end_state is cancel, unpaid or past_due")
    percent = body.get("tax_percent", "0")
    if not isinstance(percent, str) or not re.fullmatch(r"\d{1,2}(\.\d{1,4})?", percent):
        return refused("tax_percent is a decimal text from 0 to 99.9999")
    if body.get("upcoming_days", 7) not in (3, 7, 15, 30, 45):
        return refused("upcoming_days is 3, 7, 15, 30 or 45")
    if not isinstance(body.get("business_name", "x"), str) or not body.get("business_name", "x").strip():
        return refused("business_name is a text")
    with sandbox.store.transaction():
        for name, value in body.items():
            sandbox.store.set_setting(name, value)
    return JSONResponse(_settings(sandbox))
