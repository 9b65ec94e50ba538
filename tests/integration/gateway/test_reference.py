"""The page of the API for people, and answers that callers may keep."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest

from tests.e2e.browser import running
from tests.integration.gateway.conftest import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
GROUNDS = {"light": "rgb(251, 251, 250)", "dark": "rgb(16, 19, 23)"}


async def test_the_page_shows_every_operation_and_asks_for_nothing_else(stack: Stack) -> None:
    answer = await stack.http.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    described = (await stack.http.get("/openapi.json")).json()
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert f'<article id="{operation["operationId"]}"' in answer.text, path
            assert f"<code>{path}</code>" in answer.text
    assert not re.search(r"<(script|img|link|iframe|object|form)\b|javascript:|\son\w+=", answer.text)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for target in set(re.findall(r'href="#([^"]+)"', answer.text)):
        assert f'id="{target}"' in answer.text, target


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/v1/plans"])
async def test_who_has_the_answer_already_gets_304(stack: Stack, path: str) -> None:
    first = await stack.http.get(path)
    tag = first.headers["etag"]
    for sent in (tag, f'"other", W/{tag}', "*"):
        again = await stack.http.get(path, headers={"If-None-Match": sent})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = await stack.http.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


async def test_it_fits_a_phone_and_a_desk_by_day_and_by_night(stack: Stack) -> None:
    async with running() as browser:
        for width, scheme in itertools.product((390, 1280), ("light", "dark")):
            context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = await context.new_page()
            complaints: list[str] = []
            page.on("console", lambda message, complaints=complaints: complaints.append(message.text))
            await page.goto(f"http://127.0.0.1:{stack.port}/docs#count_use")
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert ground == GROUNDS[scheme], "the style sheet is applied"
            if folder := os.environ.get("TOLLWAY_SCREENSHOTS"):
                await page.screenshot(path=Path(folder) / f"docs-{width}-{scheme}.png")
            assert complaints == []
            await context.close()
