"""billing refund."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tollway.cli import output
from tollway.cli.command import current
from tollway.cli.connection import Org, connect
from tollway.cli.errors import REFUSED, CliError
from tollway.cli.progress import spinner
from tollway.cli.questions import confirm
from tollway.cli.usage import amount as amount_of


def refund(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: end the subscription and refund it.")] = False,
    org: Org = "",
) -> None:
    """Refund the base fee by the refund policy. This ends the subscription at once.

    Example:
      tollway billing refund --yes
    """
    with connect(org) as here:
        path = here.path("/billing/refund")
        offer = here.api.get(path)
        if not offer["refund"]:
            if not offer["eligible"]:
                raise CliError(str(offer["message"]), code=REFUSED, next_step="tollway billing shows the plan")
            amount = amount_of(offer["amount"], offer["currency"])
            output.note(f"{amount} will be refunded, and the subscription ends at once.")
            confirm("End the subscription and refund it?", yes=yes)
        with spinner("Ending the subscription, counting its use, refunding"):
            made = here.api.post(path)
    _show(made)


def _show(made: dict[str, Any]) -> None:
    if current.as_json:
        output.out_json(made)
        return
    amount = amount_of(made["amount"], made["currency"])
    said = {
        "refunded": f"Refunded {amount}. The subscription has ended.",
        "pending": f"The refund of {amount} is under way; it goes on by itself.",
        "refused": "The subscription has ended. Too much was used for a refund.",
    }
    output.out(said.get(str(made["status"]), output.plain(made["status"])))
