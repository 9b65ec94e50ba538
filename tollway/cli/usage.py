"""usage and plans: what is used, and what there is to buy."""

from __future__ import annotations

from typing import Any

from tollway.cli import bars, output
from tollway.cli.api import Api, resolve_url
from tollway.cli.command import current
from tollway.cli.connection import Org, connect

# Digits after the point in Stripe's amounts where they are not two (https://docs.stripe.com/currencies).
_NO_DIGITS = frozenset(
    "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF UGX VND VUV XAF XOF XPF".split()  # noqa: SIM905 - reads as the page does
)
_THREE_DIGITS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
_PERIODS = {"month": "per month", "billing_period": "per billing period", "lifetime": "in all"}


def usage(org: Org = "") -> None:
    """Show what is used of each meter, with its limits and caps.

    Example:
      tollway usage --org adas-relay
    """
    with connect(org) as here:
        answer = here.api.get(here.path("/usage"))
    if current.as_json:
        output.out_json(answer)
        return
    output.out(f"Plan: {output.plain(answer['tier'])}")
    rows = [row for meter in answer["meters"] for row in _rows(meter)]
    rows += [bars.Row(each["name"], each["held"], each["limit"], "held now") for each in answer.get("allowances", ())]
    if rows:
        output.out()
        bars.show(rows)


def _rows(meter: dict[str, Any]) -> list[bars.Row]:
    """The meter by its tightest quota, then its other limits that have a number."""
    resets = bars.local_time(meter["resets_at"])
    # Of the quota less may be left than the meter's own use leaves: leases hold units, and other meters may share it.
    taken = 0 if meter["limit"] is None else meter["limit"] - meter["remaining"]
    note = f"resets {resets}" if resets else ""
    rows = [bars.Row(meter["meter"], meter["used"] or 0, meter["limit"], note, taken)]
    shown = meter["limit"] is None
    for limit in meter["limits"]:
        kind = limit.get("kind", "quota")
        numbers = (limit["used"], limit["limit"])
        if limit["limit"] is None:
            continue
        if not shown and kind == "quota" and numbers == (meter["used"], meter["limit"]):
            shown = True  # the meter's own row says it
            continue
        resets = bars.local_time(limit["resets_at"]) if kind in {"quota", "cap"} else ""
        rows.append(bars.Row(f"  {_label(limit, kind)}", *numbers, f"resets {resets}" if resets else ""))
    return rows


def _label(limit: dict[str, Any], kind: str) -> str:
    match kind:
        case "cap":
            return "your cap" if limit["auto_stop"] else "your cap (only warns)"
        case "concurrency":
            return "at once"
        case "rate":
            return f"in {limit['window_seconds']} s"
        case _:
            return str(limit["name"])


def plans() -> None:
    """List the plans and their prices. Needs no login.

    Example:
      tollway plans
    """
    with Api(resolve_url(current.api_url)) as api:
        answer = api.get("/v1/plans")
    if current.as_json:
        output.out_json(answer)
        return
    rows = [
        (str(plan["tier"]), str(plan["name"]), _prices(plan), "; ".join(map(_quota, plan["quotas"])) or "-")
        for plan in answer["plans"]
    ]
    output.table(("PLAN", "NAME", "PRICE", "INCLUDES"), rows)


def _prices(plan: dict[str, Any]) -> str:
    if plan["contact_sales"]:
        return "contact sales"
    return ", ".join(f"{amount(p['unit_amount'], p['currency'])}/{p['interval']}" for p in plan["prices"]) or "free"


def _quota(quota: dict[str, Any]) -> str:
    limit = quota["limit"]
    if limit is None:
        return f"unlimited {quota['meter']}"
    return f"{limit:,} {quota['meter']} {_PERIODS.get(quota['period'], quota['period'])}"


def amount(minor: int, currency: str) -> str:
    """`29.00 USD`: whole minor units as Stripe counts them, without a float on the way."""
    code = currency.upper()
    digits = 0 if code in _NO_DIGITS else 3 if code in _THREE_DIGITS else 2
    whole, part = divmod(abs(minor), 10**digits)
    fraction = f".{part:0{digits}}" if digits else ""
    return f"{'-' if minor < 0 else ''}{whole:,}{fraction} {code}"
