"""Templates to answers, under a content security policy without anything inline."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.pages import assets, brand, forms, words
from tollway.billing.v1 import billing_pb2

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,  # files that change under a running process belong to another release
)
TEMPLATES.filters |= {
    "money": words.money,
    "number": words.number,
    "moment": words.moment,
    "day": words.day,
    "instant": words.instant,
    "label": words.label,
}
TEMPLATES.globals |= {
    "style_name": assets.STYLE_NAME,
    "script_name": assets.SCRIPT_NAME,
    "token_field": forms.TOKEN_FIELD,
}


def policy(pages_of_stripe: str) -> str:
    """The Content-Security-Policy. `pages_of_stripe`: origins that our forms lead on to, separated by spaces; browsers
    hold a form's redirects to `form-action` too."""
    return (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        f"base-uri 'none'; frame-ancestors 'none'; form-action 'self' {pages_of_stripe}"
    ).strip()


def headers(request: Request) -> dict[str, str]:
    return {
        "Content-Security-Policy": request.app.state.page_policy,
        # Not no-referrer: the browser would then hide even from ourselves where a form was.
        "Referrer-Policy": "same-origin",
        "X-Frame-Options": "DENY",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    }


def page(
    request: Request, template: str, shop: billing_pb2.ListPlansResponse, status: int = 200, **values: Any
) -> Response:
    """`shop` is what the seller sells and how it shows itself."""
    text = TEMPLATES.get_template(f"dash/{template}").render(shop=seller(shop), **values)
    return Response(text, status, headers(request), "text/html; charset=utf-8")


def seller(shop: billing_pb2.ListPlansResponse) -> dict[str, str]:
    """Name, whom to write to, and the style sheet with the colour."""
    contact = shop.brand.support_contact
    return {
        "name": shop.brand.name or shop.product or "Billing",
        "contact": contact if contact.startswith(("mailto:", "https://")) else "",
        "contact_text": contact.removeprefix("mailto:").removeprefix("https://"),
        "style": assets.brand_name(shop.brand.color),
        "color": brand.usable(shop.brand.color),
    }


def new_request_id() -> str:
    """Of a form that must not do its work twice when it is sent twice."""
    return str(uuid4())
