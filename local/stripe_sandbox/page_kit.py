"""What the pages share: templates, words for dates and amounts, and reading a typed card."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse

from . import payment_methods
from .context import Context
from .errors import ApiError, declined
from .invoice_lines import amount_of, interval_words
from .money import shown
from .sandbox import Sandbox
from .store import Json

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True, undefined=StrictUndefined
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FIELDS = ("email", "cardNumber", "cardExpiry", "cardCvc", "billingName")
# The field on the page that an API parameter is typed in.
_FIELD_OF = {"number": "cardNumber", "exp_month": "cardExpiry", "exp_year": "cardExpiry", "cvc": "cardCvc"}


def html(sandbox: Sandbox, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    values.setdefault("business", sandbox.store.setting("business_name", "Sandbox"))
    # The first field that needs another look gets the keyboard.
    values["focus"] = next((name for name in FIELDS if (values.get("errors") or {}).get(name)), "")
    return HTMLResponse(_templates.get_template(template).render(**values), status, _HEADERS)


def message(sandbox: Sandbox, title: str, text: str, *, link: str | None = None, status: int = 200) -> HTMLResponse:
    business = sandbox.store.setting("business_name", "Sandbox")
    return html(sandbox, "message.html", status, title=title, text=text, link=link, link_text=f"Return to {business}")


def date(at: int) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%B} {moment.day}, {moment.year}"


def every(price: Json) -> str:
    recurring = price["recurring"]
    if recurring is None:
        return ""
    count, unit = recurring["interval_count"], recurring["interval"]
    return f"per {unit}" if count == 1 else f"every {count} {unit}s"


def price_words(price: Json, quantity: int | None) -> str:
    """`$29.00 / month`; of a metered price, whose quantity is None, that it follows use."""
    if quantity is None:
        return "usage"
    return f"{shown(amount_of(price, quantity), price['currency'])} {interval_words(price)}".strip()


def typed(form: FormData) -> dict[str, str]:
    return {name: str(form.get(name) or "").strip()[:200] for name in FIELDS}


def blank() -> dict[str, str]:
    return dict.fromkeys(FIELDS, "")


def sticky(values: dict[str, str]) -> dict[str, str]:
    """What is shown again after an error: everything but the security code."""
    return values | {"cardCvc": ""}


def card_errors(values: dict[str, str], *, needs_email: bool) -> dict[str, str]:
    """Fields that are empty or malformed, by name; Checkout marks them all at once."""
    errors = blank()
    if needs_email and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", values["email"]):
        errors["email"] = "Enter a complete email address." if values["email"] else "Required"
    for name in ("cardNumber", "cardExpiry", "cardCvc", "billingName"):
        if not values[name]:
            errors[name] = "Required"
    if values["cardExpiry"] and _expiry(values["cardExpiry"]) is None:
        errors["cardExpiry"] = "Enter the date as MM / YY."
    return errors


def _expiry(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d{1,2})\s*/\s*(\d{2}|\d{4})|(\d{2})(\d{2})", text)
    if match is None:
        return None
    month, year = int(match[1] or match[3]), int(match[2] or match[4])
    return month, year if year > 99 else 2000 + year


def card_of(ctx: Context, values: dict[str, str]) -> Json:
    """The payment method of a filled form. Raises card_error."""
    expiry = _expiry(values["cardExpiry"])
    if expiry is None:
        raise declined("Your card's expiration date is incomplete.", code="invalid_expiry_month", param="exp_month")
    billing = {"name": values["billingName"] or None, "email": values["email"] or None}
    return payment_methods.from_form(ctx, values["cardNumber"], *expiry, values["cardCvc"], billing)


def place(error: ApiError, errors: dict[str, str]) -> str:
    """Puts the error beside its field; returns it for the top of the form when it has none."""
    by_code = {"incorrect_cvc": "cardCvc", "expired_card": "cardExpiry", "incorrect_number": "cardNumber"}
    name = _FIELD_OF.get(error.param or "") or by_code.get(error.code or "")
    if name is not None:
        errors[name] = error.message
        return ""
    return error.message
