"""Money, numbers and times as the pages write them: en_US, UTC and said so."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from babel.dates import format_date, format_datetime
from babel.numbers import format_decimal
from google.protobuf.timestamp_pb2 import Timestamp

from services.kit import money as kit

LOCALE = "en_US"


def money(amount_minor: int, currency: str) -> str:
    """`$29.00`."""
    return kit.format_money(amount_minor, currency, LOCALE)


def price(amount_minor: int, currency: str) -> str:
    """As a price tag: `$29` when nothing stands after the point."""
    text = money(amount_minor, currency)
    digits = kit.decimals(currency)
    return text.replace("." + "0" * digits, "") if digits and amount_minor % 10**digits == 0 else text


def unit_price(amount: str, currency: str) -> str:
    """Of a price in minor units as a decimal string, with all its digits: `"0.1"` is `$0.001`."""
    value = Decimal(amount).scaleb(-kit.decimals(currency))
    symbol = kit.format_money(0, currency, LOCALE).replace("0", "").replace(".", "").strip()
    digits = format(value.normalize(), "f")
    return f"{symbol}{digits}" if len(symbol) == 1 else f"{symbol}\u00a0{digits}"


def number(value: int) -> str:
    return str(format_decimal(value, locale=LOCALE))


def when(stamp: Timestamp) -> datetime:
    return datetime.fromtimestamp(stamp.seconds, UTC)


def moment(stamp: Timestamp) -> str:
    """`April 1, 2026, 12:00 AM UTC`."""
    return str(format_datetime(when(stamp), "MMMM d, y, h:mm a", locale=LOCALE)) + " UTC"


def day(stamp: Timestamp) -> str:
    """`April 1, 2026`, in UTC."""
    return str(format_date(when(stamp).date(), "long", locale=LOCALE))


def instant(stamp: Timestamp) -> str:
    """For `<time datetime>`."""
    return when(stamp).strftime("%Y-%m-%dT%H:%M:%SZ")


def label(name: str) -> str:
    """`live_downloads` → `Live downloads`."""
    return name.replace("_", " ").capitalize()
