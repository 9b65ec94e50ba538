"""What an invoice comes to: its lines, less discounts, and the customer's balance."""

from __future__ import annotations

from . import customer_balance, discounts, taxes
from .context import Context
from .store import Json


def reckon(ctx: Context, invoice: Json) -> Json:
    """Sets every sum of a draft from its lines, discounts and the customer's balance. Changes it in place."""
    lines = invoice["lines"]["data"]
    subtotal = sum(line["amount"] for line in lines)
    taken = discounts.take_off(ctx, lines, invoice["discounts"])
    on_top, within = taxes.levy(ctx, invoice)
    net = subtotal - sum(one["amount"] for one in taken)
    total = net + on_top
    balance = ctx.need(invoice["customer"], "customer")["balance"]
    due = max(0, total + balance)
    invoice |= {
        "amount_due": due,
        "amount_remaining": due,
        "starting_balance": balance,
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal - within,
        "total": total,
        "total_discount_amounts": taken,
        "total_excluding_tax": net - within,
    }
    return invoice


def automatic_tax(*, enabled: bool) -> Json:
    return {
        "disabled_reason": None,
        "enabled": enabled,
        "liability": {"type": "self"} if enabled else None,
        "provider": "stripe" if enabled else None,
        "status": "complete" if enabled else None,
    }


def due(ctx: Context, customer: Json, lines: list[Json], discount_ids: list[str], *, taxed: bool) -> int:
    """What an invoice of these lines will ask for, before there is one."""
    planned: Json = {
        "automatic_tax": automatic_tax(enabled=taxed),
        "customer": customer["id"],
        "discounts": discount_ids,
        "lines": {"data": lines},
    }
    return int(reckon(ctx, planned)["amount_due"])


def settle_balance(ctx: Context, invoice: Json) -> None:
    """Takes from the customer's balance what the invoice uses of it, or adds what it owes them."""
    reckon(ctx, invoice)
    left = invoice["starting_balance"] + invoice["total"] - invoice["amount_due"]
    invoice["ending_balance"] = left
    moved = left - invoice["starting_balance"]
    if moved:
        customer_balance.change(
            ctx, invoice["customer"], moved, invoice["currency"], "applied_to_invoice", invoice=invoice["id"]
        )


def give_back_balance(ctx: Context, invoice: Json) -> None:
    """What a void invoice had moved is moved back."""
    moved = (invoice["ending_balance"] or 0) - invoice["starting_balance"]
    if invoice["ending_balance"] is not None and moved:
        customer_balance.change(
            ctx, invoice["customer"], -moved, invoice["currency"], "unapplied_from_invoice", invoice=invoice["id"]
        )
