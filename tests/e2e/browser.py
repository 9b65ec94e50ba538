"""Chromium without a window, and what people do on the pages."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE, DESKTOP = (390, 844), (1280, 800)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """Its path. Without one the test is skipped; with REQUIRE_CHROMIUM=1, as in CI, it fails."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is not None:
        return found
    message = f"no Chromium here: install one (found none of {', '.join(_NAMES)}), or name it in CHROMIUM"
    if os.environ.get("REQUIRE_CHROMIUM", "0") not in {"", "0"}:
        pytest.fail(message)
    pytest.skip(message)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Browser]:
    path = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


expect.set_options(timeout=30_000)  # a loaded machine takes its time


async def open_page(browser: Browser, size: tuple[int, int] = DESKTOP, *, scripts: bool = True) -> Page:
    viewport: ViewportSize = {"width": size[0], "height": size[1]}
    context = await browser.new_context(viewport=viewport, locale="en-US", java_script_enabled=scripts)
    page = await context.new_page()
    page.set_default_timeout(30_000)
    return page


async def fill_card(page: Page, card: str) -> None:
    await page.get_by_label("Card number").fill(card)
    await page.get_by_label("Expiration").fill("12 / 34")
    await page.get_by_label("CVC").fill("123")
    await page.get_by_label("Cardholder name").fill("Ada Lovelace")


async def shoot(page: Page, name: str, *, themes: bool = False) -> None:
    """Keeps what a phone and a desktop show in the folder TOLLWAY_SCREENSHOTS, if there is one; with `themes` in dark,
    too."""
    folder = os.environ.get("TOLLWAY_SCREENSHOTS")
    for size in (PHONE, DESKTOP):
        await page.set_viewport_size({"width": size[0], "height": size[1]})
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size[0], f"{name} is {wide} px wide on a screen of {size[0]}"
        if folder:
            path = Path(folder) / f"{name}-{size[0]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            await page.screenshot(path=path, full_page=True)
        if folder and themes:
            await page.emulate_media(color_scheme="dark")
            await page.screenshot(path=Path(folder) / f"{name}-{size[0]}-dark.png", full_page=True)
            await page.emulate_media(color_scheme="light")
