"""Money is whole minor units plus a currency; it becomes text only here."""

from __future__ import annotations

from decimal import Decimal

from babel.numbers import format_currency

# Stripe's list, which is what its amounts follow; the CLDR's differs (https://docs.stripe.com/currencies).
ZERO_DECIMAL = frozenset(
    "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf".split()  # noqa: SIM905 - reads as the page does
)
THREE_DECIMAL = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})


def decimals(currency: str) -> int:
    """How many digits of Stripe's amounts in this currency (ISO 4217, any case) stand after the point."""
    code = currency.lower()
    return 0 if code in ZERO_DECIMAL else 3 if code in THREE_DECIMAL else 2


def format_money(amount_minor: int, currency: str, locale: str = "en_US") -> str:
    """`format_money(2900, "usd")` → `$29.00`; the currency's own digits, the locale's marks."""
    digits = decimals(currency)
    amount = Decimal(amount_minor).scaleb(-digits)
    pattern = "¤#,##0" + ("." + "0" * digits if digits else "")
    return format_currency(
        amount, currency.upper(), pattern if locale.startswith("en") else None, locale, currency_digits=False
    )
