"""usage and plans: what is used, and what there is to buy."""

from __future__ import annotations

from typing import Any

from tollway.cli import output
from tollway.cli.api import Api, resolve_key, resolve_url
from tollway.cli.command import current

# Digits after the point in Stripe's amounts where they are not two (https://docs.stripe.com/currencies).
_NO_DIGITS = frozenset(
    "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF UGX VND VUV XAF XOF XPF".split()  # noqa: SIM905 - reads as the page does
)
_THREE_DIGITS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
_PERIODS = {"month": "per month", "billing_period": "per billing period", "lifetime": "in all"}


def usage() -> None:
    """Show what is used of each meter in the period that runs now."""
    url = resolve_url(current.api_url)
    with Api(url, resolve_key(url)) as api:
        answer = api.get("/v1/usage")
    if current.as_json:
        output.out_json(answer)
        return
    rows = [
        (
            str(meter["meter"]),
            output.number(meter["used"], "-"),
            output.number(meter["limit"]),
            output.number(meter["remaining"], "-"),
            str(meter["resets_at"] or "-"),
        )
        for meter in answer["meters"]
    ]
    output.out(f"Plan: {output.plain(answer['tier'])}")
    if rows:
        output.out()
        output.table(("METER", "USED", "LIMIT", "REMAINING", "RESETS"), rows, right=frozenset({1, 2, 3}))


def plans() -> None:
    """List the plans and their prices. Needs no login."""
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
