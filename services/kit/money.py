"""Money is whole minor units plus a currency; it becomes text only here."""

from __future__ import annotations

import re
from decimal import Decimal

from babel import Locale
from babel.numbers import format_currency, get_currency_symbol

# Stripe's list, which is what its amounts follow; the CLDR's differs (https://docs.stripe.com/currencies).
ZERO_DECIMAL = frozenset(
    "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf".split()  # noqa: SIM905 - reads as the page does
)
THREE_DECIMAL = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})

_FRACTION = re.compile(r"0(?:\.0+)?(?=[^0.#,]|$)")  # the pattern's last digit and what follows its point


def decimals(currency: str) -> int:
    """How many digits of Stripe's amounts in this currency (ISO 4217, any case) stand after the point."""
    code = currency.lower()
    return 0 if code in ZERO_DECIMAL else 3 if code in THREE_DECIMAL else 2


def format_money(amount_minor: int, currency: str, locale: str = "en_US") -> str:
    """Text in the currency's digits and the locale's marks: `format_money(2900, "usd")` → `$29.00`.

    A symbol of letters is set off by a no-break space: `format_money(10500, "bhd")` → `BHD 10.500`.
    """
    digits = decimals(currency)
    code = currency.upper()
    pattern = Locale.parse(locale).currency_formats["standard"].pattern
    pattern = _FRACTION.sub("0" + ("." + "0" * digits if digits else ""), pattern)
    if get_currency_symbol(code, locale)[-1:].isalpha():
        pattern = re.sub(r"¤(?=[#0])", "¤\u00a0", pattern)
    return format_currency(
        Decimal(amount_minor).scaleb(-digits), code, pattern, locale, currency_digits=False, group_separator=True
    )
