"""billing preview, change, cancel, resume."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from tollway.cli import output
from tollway.cli.command import current
from tollway.cli.connection import Org, connect
from tollway.cli.questions import confirm
from tollway.cli.usage import amount

_Tier = Annotated[str, typer.Argument(help="The plan; `tollway plans` lists them.")]


def preview(tier: _Tier, org: Org = "") -> None:
    """Show what a change of plan would cost now.

    Says what happens to counters, too. Changes nothing.

    Example:
      tollway billing preview pro
    """
    with connect(org) as here:
        _show(here.api.get(here.path(f"/billing/preview?tier={quote(tier, safe='')}")))


def change(
    tier: _Tier,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    org: Org = "",
) -> None:
    """Change the plan now, after showing what it costs.

    Example:
      tollway billing change pro
    """
    with connect(org) as here:
        offer = here.api.get(here.path(f"/billing/preview?tier={quote(tier, safe='')}"))
        if not yes:
            _show(offer, note=True)
        confirm(f"Change to {output.plain(tier)} now?", yes=yes)
        body = {"tier": tier, "proration_time": offer["proration_time"]}
        changed = here.api.post(here.path("/billing/change"), body)
    if current.as_json:
        output.out_json(changed)
    else:
        output.out(f"You are on {output.plain(changed['tier'])}.")


def cancel(org: Org = "") -> None:
    """Let the plan end with its period.

    Example:
      tollway billing cancel
    """
    with connect(org) as here:
        answer = here.api.post(here.path("/billing/cancel"))
    if current.as_json:
        output.out_json(answer)
    else:
        output.out(
            f"Ends: {output.plain(answer['ends_at'] or 'with the period')}. Take it back: tollway billing resume"
        )


def resume(org: Org = "") -> None:
    """Take a cancellation back.

    Example:
      tollway billing resume
    """
    with connect(org) as here:
        answer = here.api.post(here.path("/billing/resume"))
    if current.as_json:
        output.out_json(answer)
    else:
        output.out("The plan renews as before.")


def _show(offer: dict[str, Any], *, note: bool = False) -> None:
    """On standard output; `note`: on standard error, before a question."""
    if current.as_json:
        if not note:
            output.out_json(offer)
        return
    say = output.note if note else output.out
    say(f"From {output.plain(offer['current_tier'])} to {output.plain(offer['tier'])}:")
    for line in offer["lines"]:
        say(f"  {amount(line['amount'], offer['currency'])}  {output.plain(line['description'])}")
    say(f"To pay now: {amount(offer['amount_due'], offer['currency'])}")
    if offer["total"] < 0:
        say(f"Credit for later invoices: {amount(-offer['total'], offer['currency'])}")
    for each in offer["counters"]:
        before, after = (f"{n:,}" if n is not None else "no limit" for n in (each["before"], each["after"]))
        kept = "starts from zero" if each["restarts"] else f"{each['used']:,} used, kept"
        say(f"  {output.plain(each['limit'])}: {before} to {after}, {kept}")
