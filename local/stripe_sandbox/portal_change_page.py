"""The portal's pages for changing the plan: choose, see what it costs, confirm."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from . import invoice_preview, subscriptions
from .context import Context
from .errors import ApiError
from .invoice_lines import amount_of
from .money import shown
from .page_kit import date, html, price_words
from .portal_visit import Visit, done
from .store import Json
from .usage_lines import is_metered


def can_change(subscription: Json, features: Json) -> bool:
    update = features["subscription_update"]
    return bool(
        update["enabled"]
        and "price" in update["default_allowed_updates"]
        and update["products"]
        and subscription["status"] in ("active", "trialing")
        and subscription["cancel_at"] is None
        and _item(subscription) is not None
    )


def _item(subscription: Json) -> Json | None:
    """The one item that is a plan; what is metered beside it stays."""
    licensed = [item for item in subscription["items"]["data"] if not is_metered(item)]
    return licensed[0] if len(licensed) == 1 else None


def _offered(visit: Visit, item: Json) -> list[Json]:
    """The active prices that the configuration offers, in its order."""
    store = visit.sandbox.store
    ids = [price for product in visit.features["subscription_update"]["products"] for price in product["prices"]]
    found = [store.get(price, "price") for price in ids]
    return [p for p in found if p and p["active"] and p["currency"] == item["price"]["currency"] and p["recurring"]]


def _chosen(visit: Visit, wanted: Any) -> tuple[Json, Json] | None:
    """The subscription and its item that may be changed."""
    subscription = visit.subscription(wanted)
    item = _item(subscription) if subscription is not None else None
    if subscription is None or item is None or not can_change(subscription, visit.features):
        return None
    return subscription, item


def _name(visit: Visit, price: Json) -> str:
    return str((visit.sandbox.store.get(price["product"]) or {}).get("name", ""))


async def choose(request: Request) -> Response:
    visit = Visit(request)
    if visit.refused is not None:
        return visit.refused
    chosen = _chosen(visit, request.query_params.get("subscription"))
    if chosen is None:
        return RedirectResponse(f"{visit.base}?at=home", 303)
    subscription, item = chosen
    plans = [
        {
            "id": price["id"],
            "name": _name(visit, price),
            "price": price_words(price, item["quantity"]),
            "current": price["id"] == item["price"]["id"],
        }
        for price in _offered(visit, item)
    ]
    return html(visit.sandbox, "portal_change.html", **visit.common(), subscription=subscription["id"], plans=plans)


def _waits(features: Json, item: Json, price: Json) -> bool:
    """Whether the configuration puts this change off to the end of the period."""
    conditions = {one["type"] for one in features["subscription_update"]["schedule_at_period_end"]["conditions"]}
    cheaper = amount_of(price, item["quantity"]) < amount_of(item["price"], item["quantity"])
    return ("decreasing_item_amount" in conditions and cheaper) or (
        "shortening_interval" in conditions and _days(price) < _days(item["price"])
    )


def _days(price: Json) -> int:
    recurring = price["recurring"]
    return {"day": 1, "week": 7, "month": 30, "year": 365}[recurring["interval"]] * int(recurring["interval_count"])


def _params(visit: Visit, subscription: Json, item: Json, price: Json) -> Json:
    """The update that the configuration makes of the choice."""
    update = visit.features["subscription_update"]
    params: Json = {
        "items": [{"id": item["id"], "price": price["id"]}],
        "proration_behavior": update["proration_behavior"],
    }
    if subscription["status"] == "trialing" and update["trial_update_behavior"] == "end_trial":
        params["trial_end"] = "now"
    elif update["billing_cycle_anchor"] == "now":
        params["billing_cycle_anchor"] = {"type": "now"}
    return params


def _wanted(visit: Visit, subscription: Any, price: Any) -> tuple[Json, Json, Json] | None:
    chosen = _chosen(visit, subscription)
    if chosen is None:
        return None
    offered = {one["id"]: one for one in _offered(visit, chosen[1])}
    if price not in offered or price == chosen[1]["price"]["id"]:
        return None
    return (*chosen, offered[price])


async def confirm(request: Request) -> Response:
    visit = Visit(request)
    if visit.refused is not None:
        return visit.refused
    wanted = _wanted(visit, request.query_params.get("subscription"), request.query_params.get("price"))
    if wanted is None:
        return RedirectResponse(f"{visit.base}?at=home", 303)
    return _confirmation(visit, *wanted)


def _confirmation(visit: Visit, subscription: Json, item: Json, price: Json, problem: str = "") -> Response:
    waits = _waits(visit.features, item, price)
    lines: list[Json] = []
    due = ""
    if waits:
        when = f"Your plan changes on {date(item['current_period_end'])}. Nothing is due today."
    else:
        params = {"subscription": subscription["id"], "subscription_details": _params(visit, subscription, item, price)}
        context = visit.sandbox.context()
        with visit.sandbox.store.transaction():
            preview = invoice_preview.create_preview(context, params)
        now = preview["billing_reason"] == "subscription_update"
        when = "Due today" if now else f"On your next invoice, {date(preview['period_end'])}"
        due = shown(preview["amount_due"], preview["currency"])
        lines = [
            {"description": line["description"], "amount": shown(line["amount"], line["currency"])}
            for line in preview["lines"]["data"]
        ]
    return html(
        visit.sandbox,
        "portal_change_confirm.html",
        402 if problem else 200,
        **visit.common(),
        subscription=subscription["id"],
        price=price["id"],
        name=_name(visit, price),
        words=price_words(price, item["quantity"]),
        when=when,
        due=due,
        lines=lines,
        problem=problem,
    )


async def change(request: Request) -> Response:
    visit = Visit(request)
    if visit.refused is not None:
        return visit.refused
    form = await request.form()
    wanted = _wanted(visit, form.get("subscription"), form.get("price"))
    if wanted is None:
        return RedirectResponse(f"{visit.base}?at=home", 303)
    subscription, item, price = wanted
    waits = _waits(visit.features, item, price)

    def work(ctx: Context) -> None:
        if waits:
            ctx.store.put(subscription | {"_next_price": price["id"]})
            return
        params = _params(visit, subscription, item, price) | {"payment_behavior": "error_if_incomplete"}
        subscriptions.update(ctx, params, subscription["id"])

    try:
        visit.sandbox.run(visit.sandbox.context(), work)
    except ApiError as error:
        return _confirmation(visit, subscription, item, price, error.message)
    return done(visit, "scheduled" if waits else "changed")
