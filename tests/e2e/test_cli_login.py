"""A person signs in on the page, approves the command line's code, and goes on in the terminal as who they are."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.browser import open_page
from tests.e2e.test_cli_story import _AT_MOST_S, Terminal, _line
from tests.e2e.world import World, until


@pytest.fixture
def terminal(world: World, tmp_path: Path) -> Terminal:
    return Terminal(world, tmp_path / "home")


async def test_a_code_that_is_approved_on_the_page_logs_the_terminal_in_for_every_account_of_the_person(
    world: World, terminal: Terminal, browser: Browser
) -> None:
    customer = await world.sign_up()
    slug = customer.account["slug"]
    async with terminal.start("login", "--no-browser") as login:
        code = (await _line(login, "^Your code: ")).removeprefix("Your code: ")
        address = await _line(login, r"/dash/device\?code=")
        page = await open_page(browser)
        await page.goto(address)
        await page.get_by_label("Email address").fill(customer.email)
        await page.get_by_role("button", name="Mail me a link").click()
        (mail, *_) = await until(lambda: world.mails(customer.email, "ign in"), lambda mails: len(mails) > 0)
        link = re.search(r"http://\S+/dash/sign-in/link\?\S+", mail["Text"])
        assert link is not None, mail["Text"]
        await page.goto(link[0])
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_text(code)).to_be_visible()  # back where the sign-in began
        await page.get_by_role("button", name="Approve").click()
        await expect(page.get_by_role("heading", name="The program is signed in")).to_be_visible()
        told, complained = await asyncio.wait_for(login.communicate(), _AT_MOST_S)
    assert login.returncode == 0, complained.decode()
    assert f"as {customer.email}." in told.decode()

    assert (await terminal.json("whoami"))["slug"] == slug
    second = (await terminal.json("orgs", "create", "Second Relay", "--select"))["slug"]
    issued = await terminal.json("keys", "issue", "live", "--name", "CI")
    assert issued["api_key"].startswith("sk_live_")
    listed = {org["slug"]: org["selected"] for org in (await terminal.json("orgs", "list"))["orgs"]}
    assert listed == {slug: False, second: True}
    assert (await terminal.json("billing", "status", "--org", slug))["plan"] == "free"
    actions = [entry["action"] for entry in (await terminal.json("audit", "--org", slug))["entries"]]
    assert "device_login.approved" in actions

    assert "Logged out" in await terminal.tollway("logout")
    assert "not logged in" in (await _told(terminal, "billing", code=3))


async def _told(terminal: Terminal, *words: str, code: int) -> str:
    """What a refused command says on its standard error."""
    async with terminal.start(*words) as process:
        _, told = await asyncio.wait_for(process.communicate(), _AT_MOST_S)
    assert process.returncode == code
    return told.decode()
