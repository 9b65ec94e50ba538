"""The hosted page of an invoice, where it can be paid, and its PDF."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from . import challenges, collection, payment_methods, pdf
from .context import Context
from .errors import ApiError
from .money import shown
from .page_kit import blank, card_errors, card_of, date, html, message, place, sticky, typed
from .sandbox import Sandbox
from .store import Json

_TONES = {"paid": "good", "open": "bad"}


def _found(request: Request) -> Json | None:
    """The invoice, if the link's secret part is right."""
    sandbox: Sandbox = request.app.state.sandbox
    invoice = sandbox.store.get(request.path_params["invoice"], "invoice")
    if invoice is None or invoice.get("_token") != request.path_params["token"]:
        return None
    return invoice


def _absent(request: Request) -> Response:
    return message(request.app.state.sandbox, "Page not found", "This link is not valid.", status=404)


def _period(line: Json) -> str:
    period = line["period"]
    if period["start"] == period["end"]:
        return date(period["start"])
    return f"{date(period['start'])} – {date(period['end'])}"


def _when(invoice: Json) -> str:
    if invoice["status"] == "paid":
        return f"Paid on {date(invoice['status_transitions']['paid_at'])}"
    if invoice["status"] == "open" and invoice["due_date"]:
        return f"Due on {date(invoice['due_date'])}"
    return {"open": "Payment due", "void": "This invoice was voided."}.get(invoice["status"], "")


def _show(sandbox: Sandbox, invoice: Json, status: int = 200, **form: object) -> Response:
    currency = invoice["currency"]
    fields = {"values": blank(), "errors": blank(), "problem": ""} | form
    return html(
        sandbox,
        "invoice.html",
        status,
        invoice=invoice,
        state=invoice["status"].capitalize(),
        tone=_TONES.get(invoice["status"], "plain"),
        amount=shown(invoice["total"], currency),
        when=_when(invoice),
        issued=date(invoice["effective_at"]),
        lines=[
            {
                "description": line["description"] or "",
                "period": _period(line),
                "amount": shown(line["amount"], currency),
            }
            for line in invoice["lines"]["data"]
        ],
        total=shown(invoice["total"], currency),
        paid=shown(invoice["amount_paid"], currency),
        remaining=shown(invoice["amount_remaining"], currency),
        off=shown(-sum(one["amount"] for one in invoice["total_discount_amounts"]), currency)
        if invoice["total_discount_amounts"]
        else "",
        tax=shown(tax, currency) if (tax := sum(one["amount"] for one in invoice["total_taxes"])) else "",
        balance=shown(used, currency) if (used := invoice["amount_due"] - invoice["total"]) else "",
        payable=invoice["status"] in ("open", "uncollectible"),
        challenge=_challenge(sandbox, invoice),
        **fields,
    )


def _challenge(sandbox: Sandbox, invoice: Json) -> str | None:
    """Where the person can confirm the last try, if their bank asks for that."""
    if invoice["status"] != "open" or not invoice["payments"]["data"]:
        return None
    intent = sandbox.store.get(invoice["payments"]["data"][0]["payment"]["payment_intent"])
    return challenges.address_of(intent) if intent is not None else None


async def show(request: Request) -> Response:
    invoice = _found(request)
    return _absent(request) if invoice is None else _show(request.app.state.sandbox, invoice)


async def pay(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.sandbox
    values = typed(await request.form())
    invoice = _found(request)
    if invoice is None:
        return _absent(request)
    if invoice["status"] not in ("open", "uncollectible"):
        return RedirectResponse(invoice["hosted_invoice_url"], 303)
    errors = card_errors(values, needs_email=False)
    problem = ""

    def work(ctx: Context) -> str:
        method = card_of(ctx, values)
        if payment_methods.card_of(method).authenticates:
            intent = invoice["payments"]["data"][0]["payment"]["payment_intent"]
            return challenges.ask(ctx, "payment_intent", intent, method)
        refusal = collection.attempt(ctx, invoice, method, on_session=True)
        if refusal is not None:
            refusal.keep = True
            raise refusal
        return str(invoice["hosted_invoice_url"])

    if not any(errors.values()):
        try:
            return RedirectResponse(sandbox.run(sandbox.context(), work), 303)
        except ApiError as error:
            problem = place(error, errors)
    fresh = sandbox.store.get(invoice["id"]) or invoice
    return _show(sandbox, fresh, 402, values=sticky(values), errors=errors, problem=problem)


async def show_pdf(request: Request) -> Response:
    invoice = _found(request)
    if invoice is None:
        return _absent(request)
    name = f"Invoice-{invoice['number']}.pdf"
    return Response(
        paper(invoice), media_type="application/pdf", headers={"Content-Disposition": f'inline; filename="{name}"'}
    )


def paper(invoice: Json) -> bytes:
    currency = invoice["currency"]
    text = pdf.Text
    to = [invoice["customer_name"], invoice["customer_email"]]
    texts = [
        text(50, 70, "Invoice", 22, bold=True),
        text(545, 70, invoice["account_name"], 14, bold=True, right=True),
        text(50, 105, "Invoice number", bold=True),
        text(160, 105, invoice["number"]),
        text(50, 120, "Date of issue", bold=True),
        text(160, 120, date(invoice["effective_at"])),
        text(50, 135, "Status", bold=True),
        text(160, 135, _when(invoice) or invoice["status"].capitalize()),
        text(50, 170, "Bill to", bold=True),
        *(text(50, 185 + 15 * i, line) for i, line in enumerate(filter(None, to))),
        text(
            50,
            245,
            f"{shown(invoice['amount_due'], currency)} {'paid' if invoice['status'] == 'paid' else 'due'}",
            16,
            bold=True,
        ),
        text(50, 285, "Description", 9),
        text(545, 285, "Amount", 9, right=True),
    ]
    y, rules = 310, [292]
    lines = invoice["lines"]["data"]
    for line in lines[:18]:
        texts += [
            text(50, y, (line["description"] or "")[:80]),
            text(545, y, shown(line["amount"], currency), right=True),
            text(50, y + 13, _period(line), 8),
        ]
        y += 30
    if len(lines) > 18:
        texts.append(text(50, y, f"and {len(lines) - 18} more lines, on the invoice's page"))
        y += 20
    rules.append(y - 8)
    off = sum(one["amount"] for one in invoice["total_discount_amounts"])
    tax = sum(one["amount"] for one in invoice["total_taxes"])
    for label, amount, bold in (
        *((("Discount", -off, False),) if off else ()),
        *((("Tax", tax, False),) if tax else ()),
        ("Total", invoice["total"], False),
        ("Amount paid", invoice["amount_paid"], False),
        ("Amount due", invoice["amount_remaining"], True),
    ):
        y += 16
        texts += [text(350, y, label, bold=bold), text(545, y, shown(amount, currency), bold=bold, right=True)]
    return pdf.document(texts, rules, f"Invoice {invoice['number']}")
