"""A browser without a window: keeps cookies, fills the forms that pages hold, and follows nothing by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

from tests.integration.gateway.org_world import Orgs


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class Forms(HTMLParser):
    """The forms of a page, with the values that their fields have."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[Form] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(at["action"], at["method"]))
        elif tag == "input" and self.found and at.get("name") and at.get("type") != "checkbox":
            self.found[-1].fields.setdefault(at["name"], at.get("value", ""))

    def to(self, action: str) -> Form:
        """The first one that leads there."""
        return next(form for form in self.found if form.action == action)

    def actions(self) -> set[str]:
        return {form.action for form in self.found}


class Visitor:
    def __init__(self, orgs: Orgs, http: httpx.AsyncClient) -> None:
        self.orgs = orgs
        self.http = http

    async def get(self, path: str) -> httpx.Response:
        return await self.http.get(path)

    async def send(
        self, page: str, action: str, headers: dict[str, str] | None = None, **values: str
    ) -> httpx.Response:
        """Opens the page and sends its form for `action`, with these values."""
        form = Forms((await self.get(page)).text).to(action)
        return await self.post(action, form.fields | values, headers)

    async def post(
        self, path: str, fields: dict[str, str] | list[tuple[str, str]], headers: dict[str, str] | None = None
    ) -> httpx.Response:
        body = str(httpx.QueryParams(fields))
        sent = {"Content-Type": "application/x-www-form-urlencoded"} | (headers or {})
        return await self.http.post(path, content=body, headers=sent)

    async def ask(self, email: str) -> httpx.Response:
        return await self.send("/dash/sign-in", "/dash/sign-in", email=email)

    async def sign_in(self, email: str) -> httpx.Response:
        """By the mailed link; the answer that lets in."""
        assert (await self.ask(email)).status_code == 303
        await self.orgs.billing.later.finished()
        link = f"/dash/sign-in/link?token={self.orgs.billing.mail.token}"
        return await self.send(link, "/dash/sign-in/link")


@asynccontextmanager
async def visiting(orgs: Orgs) -> AsyncIterator[Visitor]:
    """A browser of its own."""
    async with httpx.AsyncClient(base_url=orgs.http.base_url, timeout=40, trust_env=False) as http:
        yield Visitor(orgs, http)
