"""Server-rendered pages under a content security policy that allows one inline style sheet and nothing else."""

from __future__ import annotations

import base64
import hashlib
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gateway.problem_types import KNOWN

router = APIRouter(include_in_schema=False)
_FOLDER = Path(__file__).parent / "templates"
_STYLE = (_FOLDER / "style.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_templates = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
_templates.globals["style"] = Markup(_STYLE)  # noqa: S704 (our own file, not input)

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",  # the session's id is in the address after Checkout
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}


def page(template: str, status: int = 200, **values: Any) -> Response:
    text = _templates.get_template(template).render(**values)
    return Response(text, status, HEADERS, "text/html; charset=utf-8")


@router.get("/")
async def index() -> Response:
    return page("index.html")


@router.get("/checkout/success")
async def checkout_success() -> Response:
    return page("success.html")


@router.get("/checkout/canceled")
async def checkout_canceled() -> Response:
    return page("canceled.html")


@router.get("/problems")
async def problems() -> Response:
    ordered = sorted(KNOWN.items(), key=lambda item: (item[1].status, item[0]))
    return page(
        "problems.html",
        groups=[
            (status, HTTPStatus(status).phrase, list(items))
            for status, items in groupby(ordered, lambda item: item[1].status)
        ],
    )
