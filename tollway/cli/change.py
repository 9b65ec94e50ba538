"""billing preview, change, cancel, resume."""

from __future__ import annotations

import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tollway.cli import output
from tollway.cli.api import Api, resolve_key, resolve_url
from tollway.cli.command import current
from tollway.cli.errors import USAGE, CliError
from tollway.cli.orgs import Org, slug_of
from tollway.cli.usage import amount

_Tier = Annotated[str, typer.Argument(help="The plan; `tollway plans` lists them.")]


def preview(tier: _Tier, org: Org = "") -> None:
    """Show what a change of plan would cost now, and what happens to counters. Changes nothing.

    Example: tollway billing preview pro
    """
    with _api() as api:
        _show(api.get(f"{_path(api, org)}/preview?tier={quote(tier, safe='')}"))


def change(
    tier: _Tier,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    org: Org = "",
) -> None:
    """Change the plan now, after showing what it costs.

    Example: tollway billing change pro
    """
    with _api() as api:
        path = _path(api, org)
        offer = api.get(f"{path}/preview?tier={quote(tier, safe='')}")
        if not yes:
            _show(offer, note=True)
            if not sys.stdin.isatty():
                raise CliError("not confirmed", code=USAGE, next_step="add --yes")
            typer.confirm(f"Change to {output.plain(tier)} now?", abort=True, err=True)
        changed = api.post(f"{path}/change", {"tier": tier, "proration_time": offer["proration_time"]})
    if current.as_json:
        output.out_json(changed)
    else:
        output.out(f"You are on {output.plain(changed['tier'])}.")


def cancel(org: Org = "") -> None:
    """Let the plan end with its period."""
    with _api() as api:
        answer = api.post(f"{_path(api, org)}/cancel")
    if current.as_json:
        output.out_json(answer)
    else:
        output.out(
            f"Ends: {output.plain(answer['ends_at'] or 'with the period')}. Take it back: tollway billing resume"
        )


def resume(org: Org = "") -> None:
    """Take a cancellation back."""
    with _api() as api:
        answer = api.post(f"{_path(api, org)}/resume")
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


def _api() -> Api:
    url = resolve_url(current.api_url)
    return Api(url, resolve_key(url))


def _path(api: Api, org: str) -> str:
    return f"/v1/orgs/{slug_of(api, org)}/billing"
