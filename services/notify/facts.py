"""What each template is given: texts, amounts and dates, ready to be shown. The templates only place them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from babel.dates import format_date
from babel.numbers import format_decimal

from services.kit.money import format_money
from services.notify.domain import (
    Addressee,
    Brand,
    Cancellation,
    CapReached,
    Invoice,
    LimitNotice,
    Notice,
    PaymentFailed,
    Receipt,
    Refunded,
    TrialEnding,
    UsageThreshold,
)
from services.notify.text import line, mail_link, name, readable_on, web_link

DEFAULT_COLOR = "#3b4a8c"
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")

Facts = dict[str, Any]


@dataclass(frozen=True)
class Style:
    """How amounts, numbers and dates are written: by the CLDR's `locale`; dates are UTC."""

    locale: str = "en_US"

    def money(self, amount: int, currency: str) -> str:
        return format_money(amount, currency, self.locale)

    def number(self, number: int) -> str:
        return str(format_decimal(number, locale=self.locale))

    def day(self, time: datetime | None) -> str:
        return "" if time is None else str(format_date(time.astimezone(UTC).date(), "long", self.locale))


def of_brand(brand: Brand) -> Facts:
    """What the base templates need of every mail."""
    color = brand.color if _COLOR.fullmatch(brand.color) else DEFAULT_COLOR
    return {
        "brand": line(brand.name, 80) or "Billing",
        "color": color,
        "on_color": readable_on(color),
        "billing_url": web_link(brand.billing_url),
        "support": _support(brand),
    }


def of(notice: Notice, style: Style) -> Facts:
    """Everything that the templates of the notice's kind name."""
    return of_brand(notice.to.brand) | {"account": _account(notice.to)} | _OWN[type(notice)](notice, style)


def _account(to: Addressee) -> str:
    return name(to.account_name, 120)


def _support(brand: Brand) -> dict[str, str] | None:
    if address := mail_link(brand.support_contact):
        return {"lead": "Write to", "url": f"mailto:{address}", "text": address}
    if url := web_link(brand.support_contact):
        return {"lead": "See", "url": url, "text": url}
    return None


def _invoice(invoice: Invoice) -> Facts:
    return {
        "number": line(invoice.number, 60),
        "invoice_url": web_link(invoice.hosted_url),
        "pdf_url": web_link(invoice.pdf_url),
    }


def _receipt(notice: Receipt, style: Style) -> Facts:
    return _invoice(notice.invoice) | {
        "amount": style.money(notice.invoice.amount_paid, notice.invoice.currency),
        "paid_on": style.day(notice.paid_time),
    }


def _payment_failed(notice: PaymentFailed, style: Style) -> Facts:
    days = max(notice.grace_days, 0)
    return _invoice(notice.invoice) | {
        "amount": style.money(notice.invoice.amount_due, notice.invoice.currency),
        "action_required": notice.action_required,
        "grace_days": days,
        "grace_end": style.day(notice.grace_end_time) if days else "",
        "next_try": style.day(notice.next_attempt_time),
    }


def _refund(notice: Refunded, style: Style) -> Facts:
    return {
        "amount": style.money(notice.amount, notice.currency),
        "number": line(notice.invoice_number, 60),
        "refunded_on": style.day(notice.refund_time),
        "by_policy": notice.by_policy,
    }


def _trial_ending(notice: TrialEnding, style: Style) -> Facts:
    known = notice.amount is not None and notice.amount > 0 and notice.currency
    return {
        "plan": line(notice.tier_name, 60),
        "trial_end": style.day(notice.end_time),
        "amount": style.money(notice.amount or 0, notice.currency) if known else "",
        "ends_plan": notice.ends_plan,
    }


def _cancellation(notice: Cancellation, style: Style) -> Facts:
    return {
        "plan": line(notice.tier_name, 60),
        "ends_on": style.day(notice.end_time),
        "ended": notice.ended,
        "unpaid": notice.unpaid,
    }


def _limit(notice: LimitNotice, style: Style) -> Facts:
    percent = min(100, notice.used * 100 // notice.limit) if notice.limit > 0 else 100
    return {
        # Meters have the names of what they count: `staging_downloads`.
        "things": line(" and ".join(meter.replace("_", " ") for meter in notice.meters), 80) or "units",
        "used": style.number(notice.used),
        "limit": style.number(notice.limit),
        "bar": percent,
        "within": {"month": "this month", "billing_period": "this billing period"}.get(notice.period, "so far"),
        "resets_on": style.day(notice.period_end),
    }


def _usage_threshold(notice: UsageThreshold, style: Style) -> Facts:
    return _limit(notice, style) | {"percent": notice.percent, "own_cap": notice.own_cap}


def _cap_reached(notice: CapReached, style: Style) -> Facts:
    return _limit(notice, style) | {"auto_stop": notice.auto_stop}


_OWN: dict[type[Notice], Callable[[Any, Style], Facts]] = {
    Receipt: _receipt,
    PaymentFailed: _payment_failed,
    Refunded: _refund,
    TrialEnding: _trial_ending,
    Cancellation: _cancellation,
    UsageThreshold: _usage_threshold,
    CapReached: _cap_reached,
}
