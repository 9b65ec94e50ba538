"""billing refund."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from tollway.cli import output
from tollway.cli.api import Api, resolve_key, resolve_url
from tollway.cli.command import current
from tollway.cli.errors import REFUSED, USAGE, CliError
from tollway.cli.orgs import Org, slug_of
from tollway.cli.usage import amount as amount_of


def refund(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: end the subscription and refund it.")] = False,
    org: Org = "",
) -> None:
    """Refund the base fee by the refund policy. This ends the subscription at once.

    Example: tollway billing refund --yes
    """
    url = resolve_url(current.api_url)
    with Api(url, resolve_key(url)) as api:
        path = f"/v1/orgs/{slug_of(api, org)}/billing/refund"
        offer = api.get(path)
        if not offer["refund"]:
            if not offer["eligible"]:
                raise CliError(str(offer["message"]), code=REFUSED, next_step="tollway billing shows the plan")
            amount = amount_of(offer["amount"], offer["currency"])
            output.note(f"{amount} will be refunded, and the subscription ends at once.")
            if not yes:
                if not sys.stdin.isatty():
                    raise CliError("not confirmed", code=USAGE, next_step="add --yes")
                typer.confirm("End the subscription and refund it?", abort=True, err=True)
        made = api.post(path)
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
