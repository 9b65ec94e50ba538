"""Amounts as the pages show them. Inside, money is whole minor units and a currency."""

from __future__ import annotations

from decimal import Decimal

# https://docs.stripe.com/currencies#zero-decimal
ZERO_DECIMAL = frozenset(
    "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf".split()  # noqa: SIM905 - a table
)
_SYMBOLS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥", "cad": "CA$", "aud": "A$", "inr": "₹"}


def shown(amount: int, currency: str) -> str:
    """`$1,234.50`, `¥500`, `-€3.00`, `12.00 CHF`."""
    sign, units = ("-" if amount < 0 else ""), abs(amount)
    number = f"{units:,}" if currency in ZERO_DECIMAL else f"{units // 100:,}.{units % 100:02d}"
    symbol = _SYMBOLS.get(currency)
    return f"{sign}{symbol}{number}" if symbol else f"{sign}{number} {currency.upper()}"


def shown_exact(amount: Decimal, currency: str) -> str:
    """An amount of minor units with every digit it has: `$0.001`, `$29.00`."""
    if currency in ZERO_DECIMAL or amount == int(amount):
        text = shown(int(amount), currency)
        return text if amount == int(amount) else f"{text}{str(amount % 1)[1:]}"
    units = f"{(amount / 100).normalize():,f}"
    symbol = _SYMBOLS.get(currency)
    return f"{symbol}{units}" if symbol else f"{units} {currency.upper()}"
