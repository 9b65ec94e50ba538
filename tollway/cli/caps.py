"""caps, caps set, caps clear: what an account limits itself to."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from tollway.cli import bars, output
from tollway.cli.command import current
from tollway.cli.connection import Org, connect
from tollway.cli.errors import USAGE, CliError

Meter = Annotated[str, typer.Argument(metavar="METER", help="As `tollway usage` names it.")]


def show(org: Org = "") -> None:
    """Every meter that may be capped, with its cap."""
    with connect(org) as here:
        answer = here.api.get(here.path("/usage"))
    caps = [
        {"meter": meter["meter"], **limit}
        for meter in answer["meters"]
        for limit in meter["limits"]
        if limit.get("kind") == "cap"
    ]
    if current.as_json:
        output.out_json({"caps": caps})
        return
    if not caps:
        output.out("The plan has no meter that may be capped.")
        return
    rows = [
        (
            str(cap["meter"]),
            output.number(cap["limit"], "none"),
            output.number(cap["used"]),
            output.number(cap["remaining"], "-"),
            "-" if cap["limit"] is None else "stops" if cap["auto_stop"] else "warns",
            bars.local_time(cap["resets_at"]) or "-",
        )
        for cap in caps
    ]
    output.table(("METER", "CAP", "USED", "REMAINING", "THEN", "RESETS"), rows, right=frozenset({1, 2, 3}))


def set_cap(
    meter: Meter,
    limit: Annotated[str, typer.Argument(metavar="LIMIT", help="Units a period, included ones too; 0 stops at once.")],
    warn_only: Annotated[bool, typer.Option("--warn-only", help="Reaching it refuses nothing.")] = False,
    org: Org = "",
) -> None:
    """Cap what the account uses of a meter.

    Reaching the cap stops the meter until the period ends or the cap is raised; with --warn-only it is announced.

    Examples:
      tollway caps set live_downloads 5000
      tollway caps set live_downloads 5000 --warn-only
    """
    units = limit.replace(",", "").replace("_", "")
    if not re.fullmatch(r"[0-9]{1,19}", units):
        raise CliError(f"not a number of units: {limit}", code=USAGE, next_step="write it as 5000 or 5,000")
    _change(meter, {"limit": int(units), "auto_stop": not warn_only}, org)


def clear(meter: Meter, org: Org = "") -> None:
    """Remove the account's cap on a meter.

    Example:
      tollway caps clear live_downloads
    """
    _change(meter, {"limit": None}, org)


def _change(meter: str, body: dict[str, Any], org: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", meter):
        raise CliError(f"not a meter's name: {meter}", code=USAGE, next_step="see which there are: tollway usage")
    with connect(org) as here:
        cap = here.api.put(here.path(f"/caps/{meter}"), body)
    if current.as_json:
        output.out_json(cap)
        return
    if cap["limit"] is None:
        output.out(f"{meter}: no cap ({output.number(cap['used'])} used).")
        return
    then = "then it stops" if cap["auto_stop"] else "then it warns"
    resets = f", resets {bars.local_time(cap['resets_at'])}" if cap["resets_at"] else ""
    output.out(f"{meter}: {output.number(cap['used'])} of {output.number(cap['limit'])} used, {then}{resets}.")
