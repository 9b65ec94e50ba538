"""Changing what a subscription is for, with proration to the second."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from . import collection, ids, invoice_items, invoices, subscription_start
from .context import Context
from .errors import invalid
from .invoice_lines import amount_of, line
from .periods import next_end
from .prices import plan_of
from .store import Json


@dataclass
class Change:
    """What must be invoiced at once for a change."""

    invoice_now: bool
    lines: list[Json]

    def collect(self, ctx: Context, subscription: Json, behavior: str) -> None:
        if not self.invoice_now:
            return
        customer = ctx.need(subscription["customer"], "customer")
        lines = invoice_items.take_pending(ctx, customer["id"], subscription["id"]) + self.lines
        if not lines:
            return
        now = ctx.now_of(customer)
        invoice_id = ids.new("in")
        ctx.save(subscription | {"latest_invoice": invoice_id}, "customer.subscription.updated", subscription)
        invoice = invoices.draft(
            ctx,
            customer,
            lines,
            reason="subscription_update",
            currency=subscription["currency"],
            period=(now, now),
            subscription=subscription,
            invoice_id=invoice_id,
        )
        invoices.finalize(ctx, invoice)
        if invoice["status"] == "open":
            refusal = collection.attempt(ctx, invoice)
            if refusal is not None and behavior == "error_if_incomplete":
                raise refusal


def apply_to(ctx: Context, subscription: Json, params: Json) -> Change:
    """Changes items, anchor or trial of the subscription in place; returns what is to be invoiced now."""
    now = ctx.now_of(subscription["customer"])
    behavior = params.get("proration_behavior") or "create_prorations"
    items = [dict(item) for item in subscription["items"]["data"]]
    trialing = subscription["status"] == "trialing"
    moved = params.get("billing_cycle_anchor") == "now"
    prorated = behavior != "none" and not trialing and subscription["status"] != "incomplete"
    replaced: list[tuple[Json | None, Json | None]] = []
    for i, wanted in enumerate(params.get("items") or []):
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
        if old is None:
            new = subscription_start.make_item(
                ctx,
                subscription["id"],
                price,
                wanted.get("quantity") or 1,
                now,
                subscription["billing_cycle_anchor"],
                wanted.get("metadata"),
            )
            items.append(new)
        else:
            quantity = wanted["quantity"] if wanted.get("quantity") is not None else old["quantity"]
            new = old | {"price": price, "plan": plan_of(price), "quantity": quantity}
            if _interval(price) != _interval(old["price"]):
                moved = True
            items[items.index(old)] = new
        replaced.append((old, new))
    if not items:
        raise invalid("A subscription must have at least one active plan.", "items")
    if params.get("trial_end") is not None:
        return _move_trial(ctx, subscription, items, params["trial_end"], now)
    lines: list[Json] = []
    if moved and not trialing:
        for old in subscription["items"]["data"]:
            if prorated:
                _credit(ctx, subscription, old, now)
        subscription["billing_cycle_anchor"] = now
        for item in items:
            recurring = item["price"]["recurring"]
            item["current_period_start"] = now
            item["current_period_end"] = next_end(now, now, recurring["interval"], recurring["interval_count"])
            product = ctx.need(item["price"]["product"], "product")
            period = (now, item["current_period_end"])
            lines.append(
                line(
                    item,
                    item["price"],
                    product,
                    quantity=item["quantity"],
                    period=period,
                    subscription=subscription["id"],
                )
            )
    elif prorated:
        for before, after in replaced:
            if before is not None:
                _credit(ctx, subscription, before, now)
            if after is not None:
                _debit(ctx, subscription, after, now)
    subscription["items"] = subscription["items"] | {"data": items, "total_count": len(items)}
    return Change((moved and not trialing) or behavior == "always_invoice", lines)


def _interval(price: Json) -> tuple[str, int]:
    return price["recurring"]["interval"], price["recurring"]["interval_count"]


def _existing(items: list[Json], wanted: Json, index: int) -> Json | None:
    if not wanted.get("id"):
        return None
    for item in items:
        if item["id"] == wanted["id"]:
            return item
    raise invalid(f"No such subscription_item: '{wanted['id']}'", f"items[{index}][id]", "resource_missing")


def _share(item: Json, now: int) -> int:
    """The item's amount for the part of its period that is left, rounded to whole minor units."""
    whole = item["current_period_end"] - item["current_period_start"]
    left = max(0, item["current_period_end"] - now)
    return int(
        Decimal(amount_of(item["price"], item["quantity"]) * left / Decimal(whole)).quantize(Decimal(1), ROUND_HALF_UP)
    )


def _prorate(ctx: Context, subscription: Json, item: Json, now: int, amount: int, words: str) -> None:
    product = ctx.need(item["price"]["product"], "product")
    quantity = f"{item['quantity']} × " if item["quantity"] != 1 else ""
    invoice_items.add(
        ctx,
        subscription["customer"],
        amount=amount,
        currency=item["price"]["currency"],
        description=f"{words} {quantity}{product['name']}",
        period=(now, item["current_period_end"]),
        price=item["price"],
        quantity=item["quantity"],
        subscription=subscription["id"],
        proration=True,
    )


def _credit(ctx: Context, subscription: Json, item: Json, now: int) -> None:
    _prorate(ctx, subscription, item, now, -_share(item, now), "Unused time on")


def _debit(ctx: Context, subscription: Json, item: Json, now: int) -> None:
    _prorate(ctx, subscription, item, now, _share(item, now), "Remaining time on")


def _move_trial(ctx: Context, subscription: Json, items: list[Json], trial_end: int | str, now: int) -> Change:
    if trial_end == "now":
        if subscription["status"] != "trialing":
            raise invalid("This subscription has no trial to end.", "trial_end")
        subscription |= {"status": "active", "trial_end": now, "billing_cycle_anchor": now}
        lines: list[Json] = []
        for item in items:
            recurring = item["price"]["recurring"]
            item["current_period_start"] = now
            item["current_period_end"] = next_end(now, now, recurring["interval"], recurring["interval_count"])
            product = ctx.need(item["price"]["product"], "product")
            period = (now, item["current_period_end"])
            lines.append(
                line(
                    item,
                    item["price"],
                    product,
                    quantity=item["quantity"],
                    period=period,
                    subscription=subscription["id"],
                )
            )
        subscription["items"] = subscription["items"] | {"data": items}
        return Change(True, lines)
    end = int(trial_end)
    if end <= now:
        raise invalid("The trial end must be in the future.", "trial_end")
    for item in items:
        item["current_period_end"] = end
    subscription |= {"status": "trialing", "trial_end": end, "billing_cycle_anchor": end}
    subscription["trial_start"] = subscription["trial_start"] or now
    subscription["items"] = subscription["items"] | {"data": items}
    ctx.store.schedule(subscription["id"], "trial_will_end", subscription["test_clock"], max(now, end - 3 * 86_400))
    return Change(False, [])
