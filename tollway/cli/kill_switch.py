"""admin kill-switch: with the operator's token, from TOLLWAY_OPERATOR_TOKEN."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tollway.cli import bars, output
from tollway.cli.admin_accounts import operator_api
from tollway.cli.command import current

_PATH = "/v1/operator/kill-switch"
_Meter = Annotated[str, typer.Option("--meter", metavar="METER", help="Only this meter; else every one.")]


def show() -> None:
    """Every kill switch that was ever thrown, and how it stands."""
    with operator_api() as api:
        answer = api.get(_PATH)
    if current.as_json:
        output.out_json(answer)
        return
    rows = [
        (
            str(switch["meter"] or "every meter"),
            "ON" if switch["enabled"] else "off",
            bars.local_time(switch["changed_at"]) or "never",
            str(switch["reason"]) or "-",
        )
        for switch in answer["switches"]
    ]
    output.table(("METER", "SWITCH", "SINCE", "REASON"), rows)


def on(
    reason: Annotated[str, typer.Argument(metavar="REASON", help="For people: they see it in the billing status.")],
    meter: _Meter = "",
) -> None:
    """Refuse every use from now on, everywhere. What was counted stays counted.

    Examples:
      tollway admin kill-switch on "incident 4711"
      tollway admin kill-switch on "bucket is down" --meter live_downloads
    """
    _throw({"enabled": True, "reason": reason, "meter": meter or None})


def off(meter: _Meter = "") -> None:
    """Release the kill switch: uses are decided by their limits again.

    Example:
      tollway admin kill-switch off
    """
    _throw({"enabled": False, "meter": meter or None})


def _throw(body: dict[str, Any]) -> None:
    with operator_api() as api:
        switch = api.put(_PATH, body)
    if current.as_json:
        output.out_json(switch)
        return
    what = output.plain(switch["meter"] or "every meter")
    if switch["enabled"]:
        output.out(output.paint(f"Kill switch ON for {what}: {output.plain(switch['reason'])}", "red", "bold"))
    else:
        output.out(f"Kill switch off for {what}.")
