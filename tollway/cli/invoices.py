"""billing invoices."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tollway.cli import output
from tollway.cli.command import current
from tollway.cli.connection import Org, connect
from tollway.cli.errors import USAGE, CliError
from tollway.cli.usage import amount


def invoices(
    number: Annotated[
        str, typer.Argument(metavar="[NUMBER]", help="Only this one, with its pages.", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The newest so many.")] = 100,
    org: Org = "",
) -> None:
    """List the invoices, newest first; or show one.

    With its number it is shown with the page on which it is paid, and its PDF.

    Examples:
      tollway billing invoices
      tollway billing invoices ABCD1234-0001
    """
    with connect(org) as here:
        found = here.pages("/invoices", "invoices", limit=None if number else limit)
    if number:
        found = [each for each in found if number in {each["number"], each["id"]}]
        if not found:
            raise CliError(f"no invoice has the number {number}", code=USAGE, next_step="tollway billing invoices")
        _one(found[0])
        return
    if current.as_json:
        output.out_json({"invoices": found})
        return
    if not found:
        output.out("There are no invoices yet.")
        return
    rows = [
        (each["number"] or each["id"], each["status"], _total(each), str(each["created_at"])[:10], _paid(each))
        for each in found
    ]
    output.table(("NUMBER", "STATUS", "AMOUNT", "DATE", "PAID"), rows, right=frozenset({2}))


def _one(invoice: dict[str, Any]) -> None:
    if current.as_json:
        output.out_json(invoice)
        return
    lines = {
        "Number": invoice["number"] or invoice["id"],
        "Status": invoice["status"],
        "Amount": _total(invoice),
        "Date": invoice["created_at"],
        "Paid": invoice["paid_at"],
        "Next try": invoice["next_payment_attempt"],
        "Page": invoice["hosted_invoice_url"],
        "PDF": invoice["invoice_pdf"],
    }
    for label, value in lines.items():
        if value:
            output.out(f"{label}: {output.plain(value)}")


def _total(invoice: dict[str, Any]) -> str:
    return amount(int(invoice["amount_due"]), str(invoice["currency"]))


def _paid(invoice: dict[str, Any]) -> str:
    return str(invoice["paid_at"] or "-")[:10]
