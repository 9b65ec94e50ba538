"""Changing what a subscription is for, with proration to the second (https://docs.stripe.com/billing/subscriptions/prorations).

What was billed for an item's running period, less its discounts, is credited for the time that is left, and what the
new item costs for that time is charged: as pending invoice items, or on an invoice at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from . import collection, discounts, events, ids, invoice_items, invoice_life, subscription_start, usage_lines
from .context import Context
from .errors import ApiError, invalid
from .fields import merged_metadata
from .invoice_lines import amount_of, item_line
from .params import array, boolean, choice, integer, metadata, now_or_time, record, text
from .periods import DAY, next_end, share
from .prices import plan_of
from .store import Json

ITEM = record(
    {
        "id": text,
        "price": text,
        "quantity": integer,
        "metadata": metadata,
        "deleted": boolean,
        "clear_usage": boolean,
    }
)
FIELDS = {
    "billing_cycle_anchor": record({"type": choice("now", "unchanged")}, required=["type"]),
    "items": array(ITEM),
    "proration_behavior": choice("always_invoice", "create_prorations", "none"),
    "proration_date": integer,
    "trial_end": now_or_time,
}


@dataclass
class Change:
    """What must be invoiced at once for a change."""

    invoice_now: bool = False
    lines: list[Json] = field(default_factory=list)

    def draft(self, ctx: Context, subscription: Json) -> Json | None:
        """The draft of that invoice, saved with its subscription; None if there is nothing on it."""
        if not self.invoice_now:
            return None
        customer = ctx.need(subscription["customer"], "customer")
        lines = invoice_items.take_pending(ctx, customer["id"], subscription["id"]) + self.lines
        if not lines:
            return None
        now = ctx.now_of(customer)
        invoice_id = ids.new("in")
        after = subscription | {"latest_invoice": invoice_id}
        ctx.save(after, "customer.subscription.updated", subscription)
        return invoice_life.draft(
            ctx,
            customer,
            lines,
            reason="subscription_update",
            currency=subscription["currency"],
            period=(now, now),
            subscription=after,
            invoice_id=invoice_id,
        )

    def collect(self, ctx: Context, subscription: Json, behavior: str) -> None:
        """Invoices and charges at once. Raises card_error for `error_if_incomplete`; then nothing of it stays."""
        invoice = self.draft(ctx, subscription)
        if invoice is None:
            return
        invoice_life.finalize(ctx, invoice)
        if invoice["status"] != "open":
            return
        if behavior == "default_incomplete":
            current = ctx.need(subscription["id"], "subscription")
            ctx.save(current | {"status": "past_due"}, "customer.subscription.updated", current)
            return
        refusal = collection.attempt(ctx, invoice)
        if refusal is not None and behavior == "error_if_incomplete":
            raise refusal


def asked(params: Json) -> bool:
    return bool(params.get("items") or params.get("trial_end") is not None or _anchored_now(params))


def _anchored_now(params: Json) -> bool:
    return bool((params.get("billing_cycle_anchor") or {}).get("type") == "now")


def apply_to(ctx: Context, subscription: Json, params: Json) -> Change:
    """Changes items, anchor or trial of the subscription in place; returns what is to be invoiced now."""
    now = ctx.now_of(subscription["customer"])
    behavior = params.get("proration_behavior") or "create_prorations"
    if subscription["status"] in ("canceled", "incomplete_expired"):
        raise ApiError("A canceled subscription cannot be changed.", code="resource_missing")
    items, replaced = _changed_items(ctx, subscription, params.get("items") or [], now)
    if params.get("trial_end") is not None:
        return _move_trial(ctx, subscription, items, params["trial_end"], now)
    trialing = subscription["status"] == "trialing"
    moved = _anchored_now(params) or any(old and new and _interval(old) != _interval(new) for old, new in replaced)
    if trialing or subscription["status"] == "incomplete":
        # Nothing was paid for the running period, so nothing is made up for.
        subscription["items"] = subscription["items"] | {"data": items, "total_count": len(items)}
        return Change()
    at = _proration_time(subscription, params, now)
    change = Change(invoice_now=moved or behavior == "always_invoice")
    if moved:
        if behavior != "none":
            for old in subscription["items"]["data"]:
                _credit(ctx, subscription, old, at)
        _bill_use(ctx, subscription, subscription["items"]["data"], now, change)
        subscription["billing_cycle_anchor"] = now
        change.lines += _new_periods(ctx, subscription, items, now)
    else:
        removed = [old for old, new in replaced if old and (new is None or new["price"]["id"] != old["price"]["id"])]
        _bill_use(ctx, subscription, removed, now, change)
        if behavior != "none":
            for old, new in replaced:
                if old is not None:
                    _credit(ctx, subscription, old, at)
                if new is not None:
                    _debit(ctx, subscription, new, at)
    subscription["items"] = subscription["items"] | {"data": items, "total_count": len(items)}
    return change


def set_items(ctx: Context, subscription: Json, wanted: list[Json]) -> None:
    """Changes the items in place and bills nothing: for a change with the turn of the period."""
    items, _ = _changed_items(ctx, subscription, wanted, ctx.now_of(subscription["customer"]))
    subscription["items"] = subscription["items"] | {"data": items, "total_count": len(items)}


def _changed_items(
    ctx: Context, subscription: Json, wanted_items: list[Json], now: int
) -> tuple[list[Json], list[tuple[Json | None, Json | None]]]:
    """The items as they shall be, and the pairs (before, after) of those whose price or quantity differs."""
    items = [dict(item) for item in subscription["items"]["data"]]
    replaced: list[tuple[Json | None, Json | None]] = []
    for i, wanted in enumerate(wanted_items):
        old = _existing(items, wanted, i)
        if wanted.get("deleted"):
            if old is None:
                raise invalid("Missing required param: items[id].", f"items[{i}][id]", "parameter_missing")
            items.remove(old)
            replaced.append((old, None))
            continue
        price = old["price"] if old else None
        if wanted.get("price"):
            price = subscription_start.recurring_price(ctx, wanted["price"], f"items[{i}][price]")
        if price is None:
            raise invalid("Missing required param: price.", f"items[{i}][price]", "parameter_missing")
        if price["currency"] != subscription["currency"]:
            raise invalid("All prices on a subscription must have the same currency.", f"items[{i}][price]")
        if wanted.get("quantity") is not None and wanted["quantity"] < 0:
            raise invalid("Invalid non-negative integer", f"items[{i}][quantity]", "parameter_invalid_integer")
        if old is None:
            anchor = subscription["billing_cycle_anchor"]
            new = subscription_start.make_item(
                subscription["id"], price, wanted.get("quantity"), now, anchor, wanted.get("metadata")
            )
            items.append(new)
            replaced.append((None, new))
            continue
        quantity = wanted["quantity"] if wanted.get("quantity") is not None else old.get("quantity", 1)
        new = old | {"price": events.snapshot(price), "plan": plan_of(price), "quantity": quantity}
        if price["recurring"]["usage_type"] == "metered":
            new.pop("quantity")
        if "metadata" in wanted:
            new["metadata"] = merged_metadata(old["metadata"], wanted["metadata"])
        items[items.index(old)] = new
        if (new["price"]["id"], new.get("quantity")) != (old["price"]["id"], old.get("quantity")):
            replaced.append((old, new))
    if not items:
        raise invalid("A subscription must have at least one active plan.", "items")
    used = [item["price"]["id"] for item in items]
    if len(set(used)) < len(used):
        raise invalid("A subscription cannot have two items with the same price.", "items")
    return items, replaced


def _existing(items: list[Json], wanted: Json, index: int) -> Json | None:
    if not wanted.get("id"):
        return None
    for item in items:
        if item["id"] == wanted["id"]:
            return item
    raise invalid(f"No such subscription_item: '{wanted['id']}'", f"items[{index}][id]", "resource_missing")


def _interval(item: Json) -> tuple[str, int]:
    recurring = item["price"]["recurring"]
    return recurring["interval"], recurring["interval_count"]


def _proration_time(subscription: Json, params: Json, now: int) -> int:
    at = params.get("proration_date")
    if at is None:
        return now
    begin = min(item["current_period_start"] for item in subscription["items"]["data"])
    end = max(item["current_period_end"] for item in subscription["items"]["data"])
    if not begin <= at <= end:
        raise invalid("proration_date must lie within the current period.", "proration_date")
    return int(at)


def _new_periods(ctx: Context, subscription: Json, items: list[Json], now: int) -> list[Json]:
    """Starts a period for each item now; returns the lines of those that are paid in advance."""
    lines: list[Json] = []
    for item in items:
        item["current_period_start"] = now
        item["current_period_end"] = next_end(now, now, *_interval(item))
        if not usage_lines.is_metered(item):
            lines.append(item_line(ctx, item, subscription["id"]))
    return lines


def _bill_use(ctx: Context, subscription: Json, items: list[Json], now: int, change: Change) -> None:
    """What was used of metered items up to now, when their period ends early: on the invoice, or pending."""
    for item in items:
        if not usage_lines.is_metered(item):
            continue
        period = (item["current_period_start"], now)
        for line in usage_lines.lines(ctx, subscription["customer"], item, period, subscription["id"]):
            if change.invoice_now:
                change.lines.append(line)
            elif line["amount"]:
                invoice_items.add(
                    ctx,
                    subscription["customer"],
                    amount=line["amount"],
                    currency=line["currency"],
                    description=line["description"],
                    period=period,
                    price=item["price"],
                    subscription=subscription["id"],
                )


def credit_rest(ctx: Context, subscription: Json, at: int) -> None:
    """Credits what was paid for time after `at`, for a subscription that ends then."""
    for item in subscription["items"]["data"]:
        _credit(ctx, subscription, item, at)


def _credit(ctx: Context, subscription: Json, item: Json, at: int) -> None:
    """Credits what was billed for the item's period, less discounts: an item changed without proration as it was."""
    billed = (subscription.get("_net") or {}).get(item["id"], 0)
    if billed:
        _prorate(ctx, subscription, item, at, -share(billed, item, at), "Unused time on")


def _debit(ctx: Context, subscription: Json, item: Json, at: int) -> None:
    if usage_lines.is_metered(item):
        return
    whole = amount_of(item["price"], item["quantity"])
    cost = discounts.net(ctx, whole, item["price"]["product"], subscription["discounts"])
    subscription["_net"] = (subscription.get("_net") or {}) | {item["id"]: cost}
    _prorate(ctx, subscription, item, at, share(cost, item, at), "Remaining time on")


def _prorate(ctx: Context, subscription: Json, item: Json, at: int, amount: int, words: str) -> None:
    product = ctx.need(item["price"]["product"], "product")
    quantity = f"{item['quantity']} × " if item["quantity"] != 1 else ""
    invoice_items.add(
        ctx,
        subscription["customer"],
        amount=amount,
        currency=item["price"]["currency"],
        description=f"{words} {quantity}{product['name']} after {datetime.fromtimestamp(at, UTC):%d %b %Y}",
        period=(at, item["current_period_end"]),
        price=item["price"],
        quantity=item["quantity"],
        subscription=subscription["id"],
        proration=True,
    )


def _move_trial(ctx: Context, subscription: Json, items: list[Json], trial_end: int | str, now: int) -> Change:
    subscription["items"] = subscription["items"] | {"data": items, "total_count": len(items)}
    if trial_end == "now":
        if subscription["status"] != "trialing":
            return Change()
        subscription |= {"status": "active", "trial_end": now, "billing_cycle_anchor": now}
        ctx.store.cancel_jobs(subscription["id"], "trial_will_end")
        return Change(True, _new_periods(ctx, subscription, items, now))
    end = int(trial_end)
    if end <= now:
        raise invalid("The trial end must be in the future.", "trial_end")
    if subscription["status"] not in ("trialing", "active"):
        raise invalid(f"A subscription with status {subscription['status']} cannot begin a trial.", "trial_end")
    if subscription["status"] == "active":
        credit_rest(ctx, subscription, now)
    for item in items:
        item["current_period_end"] = end
    subscription |= {"status": "trialing", "trial_end": end, "billing_cycle_anchor": end, "_net": {}}
    subscription["trial_start"] = subscription["trial_start"] or now
    ctx.store.schedule(subscription["id"], "trial_will_end", subscription["test_clock"], max(now, end - 3 * DAY))
    return Change()
