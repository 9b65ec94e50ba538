"""Style sheet and script of the pages behind the sign-in, under names that change with what they hold."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, Response

from gateway.pages import brand
from gateway.problems import Problem

router = APIRouter(prefix="/dash/assets", include_in_schema=False)
_FOLDER = Path(__file__).parent / "assets"
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_NAME = re.compile(r"(page|brand)-([0-9a-f]{6,16})\.(css|js)")
_FOR_EVER = "public, max-age=31536000, immutable"


def _read(ending: str) -> tuple[str, str]:
    """(text, the name that it is served under)."""
    text = (_FOLDER / f"page.{ending}").read_text()
    return text, f"page-{hashlib.sha256(text.encode()).hexdigest()[:12]}.{ending}"


_STYLE, STYLE_NAME = _read("css")
_SCRIPT, SCRIPT_NAME = _read("js")


def brand_name(color: str) -> str:
    """The name of the style sheet with the seller's colour: the colour is in it, so any replica serves it."""
    return f"brand-{brand.usable(color)[1:]}.css"


@router.get("/{name}")
async def asset(name: str) -> Response:
    found = _NAME.fullmatch(name)
    if found is None:
        raise Problem("route_not_found")
    kind, mark, ending = found.groups()
    if kind == "brand":
        if len(mark) != 6 or ending != "css":
            raise Problem("route_not_found")
        text = brand.style_sheet(f"#{mark}")
        return Response(text, headers={"Cache-Control": _FOR_EVER}, media_type=_TYPES["css"])
    # Of another release, in a rolling deployment: ours will do, for the moment.
    ours = name in {STYLE_NAME, SCRIPT_NAME}
    cache = {"Cache-Control": _FOR_EVER if ours else "no-store"}
    return Response(_STYLE if ending == "css" else _SCRIPT, headers=cache, media_type=_TYPES[ending])
