"""The HTTP side: Mailpit's API, the page, and the knob for refusals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.message import MIMEPart
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from local.mailbox import message
from local.mailbox.smtp import Faults
from local.mailbox.store import Mail, Store

_MOST = 500
# A mail is somebody else's HTML: no script, no form, no look at this page; its links open in a tab of their own.
_MAIL_POLICY = "sandbox allow-popups allow-popups-to-escape-sandbox; script-src 'none'; frame-ancestors 'self'"
_PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'"
)


class Mailbox:
    """The routes over one store."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._pages = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("pages")), autoescape=select_autoescape(["html"])
        )

    def application(self) -> Starlette:
        routes = [
            Route("/", self.page),
            Route("/message/{id}", self.page),
            Route("/healthz", self.health),
            Route("/readyz", self.health),
            Route("/livez", self.health),
            Route("/api/v1/messages", self.list_messages, methods=["GET"]),
            Route("/api/v1/messages", self.delete_messages, methods=["DELETE"]),
            Route("/api/v1/messages", self.mark_messages, methods=["PUT"]),
            Route("/api/v1/search", self.search),
            Route("/api/v1/message/{id}", self.read_message),
            Route("/api/v1/message/{id}/headers", self.read_headers),
            Route("/api/v1/message/{id}/raw", self.read_raw),
            Route("/api/v1/message/{id}/part/{part:int}", self.read_part),
            Route("/view/{id}.html", self.view_html),
            Route("/view/{id}.txt", self.view_text),
            Route("/_mailbox/faults", self.read_faults, methods=["GET"]),
            Route("/_mailbox/faults", self.set_faults, methods=["PUT"]),
        ]
        # A page elsewhere that points its own name at 127.0.0.1 must not read the mails.
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
        return Starlette(routes=routes, middleware=[hosts])

    async def health(self, _: Request) -> Response:
        self._store.counts()
        return PlainTextResponse("ok\n")

    async def list_messages(self, request: Request) -> Response:
        start, limit = _number(request, "start", 0), _number(request, "limit", 50)
        return JSONResponse(self._listing(self._store.page(start, min(limit, _MOST)), start))

    async def search(self, request: Request) -> Response:
        start, limit = _number(request, "start", 0), _number(request, "limit", 50)
        query = request.query_params.get("query", "")
        found = [mail for mail in self._store.all() if message.matches(mail, query)]
        answer = self._listing(found[start : start + min(limit, _MOST)], start)
        unread = sum(not mail.read for mail in found)
        return JSONResponse(answer | {"messages_count": len(found), "messages_unread": unread})

    async def read_message(self, request: Request) -> Response:
        mail = self._mail(request)
        self._store.mark([mail.id], read=True)
        return JSONResponse(message.detail(mail))

    async def read_headers(self, request: Request) -> Response:
        return JSONResponse(message.headers(message.parse(self._mail(request))))

    async def read_raw(self, request: Request) -> Response:
        return PlainTextResponse(self._mail(request).raw)

    async def read_part(self, request: Request) -> Response:
        parts = message.attachments(message.parse(self._mail(request)))
        number = request.path_params["part"]
        if not 1 <= number <= len(parts):
            raise HTTPException(404, "this message has no such part")
        return _download(parts[number - 1])

    async def delete_messages(self, request: Request) -> Response:
        self._store.delete(_identifiers(await _body(request)))
        return PlainTextResponse("ok")

    async def mark_messages(self, request: Request) -> Response:
        body = await _body(request)
        self._store.mark(_identifiers(body), read=bool(body.get("Read", False)))
        return PlainTextResponse("ok")

    async def view_html(self, request: Request) -> Response:
        mail = self._mail(request)
        html = message.html(message.parse(mail))
        if not html:
            raise HTTPException(404, "this message has no HTML part")
        return HTMLResponse(f'<base target="_blank">{html}', headers={"Content-Security-Policy": _MAIL_POLICY})

    async def view_text(self, request: Request) -> Response:
        return PlainTextResponse(message.text(message.parse(self._mail(request))))

    async def read_faults(self, _: Request) -> Response:
        return JSONResponse(vars(self._faults))

    async def set_faults(self, request: Request) -> Response:
        """`{"reject": 451, "next": 2}` refuses the next two mails; `stage` is `data` (default) or `rcpt`."""
        body = await _body(request)
        reject, count = body.get("reject", 451), body.get("next", 0)
        stage = body.get("stage", "data")
        if not isinstance(reject, int) or not 400 <= reject <= 599:
            raise HTTPException(422, "reject: expected an SMTP code from 400 to 599")
        if not isinstance(count, int) or count < 0:
            raise HTTPException(422, "next: expected how many mails to refuse, 0 or more")
        if stage not in {"data", "rcpt"}:
            raise HTTPException(422, "stage: expected data or rcpt")
        self._faults.reject, self._faults.next, self._faults.stage = reject, count, stage
        return JSONResponse(vars(self._faults))

    async def page(self, request: Request) -> Response:
        chosen = request.path_params.get("id")
        opened: dict[str, Any] | None = None
        if chosen is not None:
            mail = self._mail(request)
            self._store.mark([mail.id], read=True)
            opened = message.detail(mail)
        query = request.query_params.get("query", "")
        mails = [mail for mail in self._store.all() if message.matches(mail, query)][:_MOST]
        total, unread = self._store.counts()
        text = self._pages.get_template("mailbox.html").render(
            mails=[message.summary(mail) for mail in mails],
            opened=opened,
            plain=request.query_params.get("view") == "text",
            query=query,
            total=total,
            unread=unread,
        )
        return HTMLResponse(text, headers={"Content-Security-Policy": _PAGE_POLICY})

    def _mail(self, request: Request) -> Mail:
        mail = self._store.get(request.path_params["id"])
        if mail is None:
            raise HTTPException(404, "message not found")
        return mail

    def _listing(self, mails: Iterable[Mail], start: int) -> dict[str, Any]:
        total, unread = self._store.counts()
        messages = [message.summary(mail) for mail in mails]
        return {
            "total": total,
            "unread": unread,
            "count": len(messages),
            "messages_count": total,
            "messages_unread": unread,
            "start": start,
            "tags": [],
            "messages": messages,
        }


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    try:
        body = json.loads(raw) if raw else {}
    except ValueError as error:
        raise HTTPException(400, "the body is not JSON") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return body


def _identifiers(body: dict[str, Any]) -> list[str]:
    found = body.get("IDs") or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise HTTPException(422, "IDs: expected a list of message ids")
    return found


def _download(part: MIMEPart) -> Response:
    name = quote(part.get_filename() or "part", safe="")
    # Downloaded, never shown: it comes from somebody else and this origin shows mails.
    return Response(
        message.content(part),
        media_type=part.get_content_type(),
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            "X-Content-Type-Options": "nosniff",
        },
    )
