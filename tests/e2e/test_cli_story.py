"""The story from a terminal: the `tollway` command as a process, the payment page in Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import stat
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.browser import fill_card, open_page
from tests.e2e.world import PAYS, Json, World, until

# A command in a process of its own, on a machine that may be busy.
_AT_MOST_S = 30.0


class Terminal:
    """A person's shell: a home of its own, the gateway's address, and a browser that notes what it is to open."""

    def __init__(self, world: World, home: Path, **environment: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.opened = home / "opened.txt"
        browser = home / "browser"
        # Moved into place, so that whoever sees the file sees all of it.
        note = f"printf %s \"$1\" > '{self.opened}.part' && mv '{self.opened}.part' '{self.opened}'"
        browser.write_text(f"#!/bin/sh\n{note}\n")
        browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLWAY_", "XDG_"))}
        self._environment = kept | {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "TOLLWAY_API_URL": world.stack.gateway_url,
            "TOLLWAY_NATS_URL": world.stack.nats_url,
            "BROWSER": f"{browser} %s",
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            **environment,
        }

    @contextlib.asynccontextmanager
    async def start(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """`tollway …`; it is stopped at the block's end if it still runs."""
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("tollway")),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            # Reads what is left, so that the pipes close.
            await asyncio.wait_for(process.communicate(), _AT_MOST_S)

    async def tollway(self, *words: str, code: int = 0) -> str:
        """What `tollway …` prints on its output, once it has ended with that code."""
        async with self.start(*words) as process:
            out, told = await asyncio.wait_for(process.communicate(), _AT_MOST_S)
        assert process.returncode == code, f"tollway {' '.join(words)}: {out.decode()}{told.decode()}"
        assert "Traceback" not in told.decode()
        return out.decode()

    async def json(self, *words: str) -> Json:
        found: Json = json.loads(await self.tollway(*words, "--json"))
        return found


@pytest.fixture
def terminal(world: World, tmp_path: Path) -> Terminal:
    return Terminal(world, tmp_path / "home")


def _email() -> str:
    return f"cli-{uuid.uuid4().hex[:8]}@example.com"


async def _line(process: asyncio.subprocess.Process, pattern: str) -> str:
    """The next line of its output that fits; fails at the end of the output."""
    assert process.stdout is not None
    async with asyncio.timeout(_AT_MOST_S):
        while line := (await process.stdout.readline()).decode():
            if re.search(pattern, line):
                return line.strip()
    raise AssertionError(f"it ended without a line like {pattern}")


async def test_sign_up_upgrade_pay_and_see_pro_with_its_renewal(
    world: World, terminal: Terminal, browser: Browser
) -> None:
    email = _email()
    said = await terminal.tollway("signup", email, "--name", "Ada Lovelace")
    assert re.search(r"^API key: sk_live_[0-9A-Za-z]{33}$", said, re.MULTILINE)
    assert await terminal.tollway("billing") == "Plan: free\nStatus: active\n"

    async with terminal.start("billing", "upgrade", "pro", "--no-browser") as upgrade:
        address = await _line(upgrade, r"https?://\S+/c/pay/cs_test_")
        assert upgrade.returncode is None, "it waits"
        page = await open_page(browser)
        await page.goto(address)
        await fill_card(page, PAYS)
        await page.get_by_role("button", name="Subscribe").click()
        await expect(page.get_by_role("heading", name="Payment received")).to_be_visible()
        out, told = await asyncio.wait_for(upgrade.communicate(), _AT_MOST_S)
        assert upgrade.returncode == 0, told.decode()
    assert not terminal.opened.exists(), "--no-browser opens none"
    lines = r"Plan: pro\nStatus: active\nRenews: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n"
    assert re.fullmatch(lines, out.decode())

    shown = await terminal.tollway("billing")
    assert re.fullmatch(lines, shown)
    status = await terminal.json("billing")
    assert status == {
        "plan": "pro",
        "status": "active",
        "current_period_end": shown.splitlines()[2].removeprefix("Renews: "),
        "cancel_at_period_end": False,
    }

    account = (await terminal.json("whoami"))["account_id"]
    wanted = ("--type", "TierChanged", "--type", "InvoicePaid", "--account", account)
    stream = await terminal.tollway("events", "tail", "--from-start", *wanted, "--limit", "3", "--json")
    events = [json.loads(line) for line in stream.splitlines()]
    tiers = [event["data"] for event in events if event["type"].endswith(".TierChanged")]
    assert [(data.get("previous_tier", ""), data["tier"]) for data in tiers] == [("", "free"), ("free", "pro")]
    (paid,) = [event["data"] for event in events if event["type"].endswith(".InvoicePaid")]
    assert paid["invoice"]["amount_paid"] == "2900"
    (receipt,) = await _receipts(world, email)
    assert paid["invoice"]["number"] in receipt["Text"]


async def _receipts(world: World, email: str) -> list[Json]:
    return await until(lambda: world.mails(email, "receipt"), bool)


async def test_upgrade_opens_checkout_in_the_browser_and_portal_opens_the_portal(
    world: World, terminal: Terminal
) -> None:
    email = _email()
    key = (await terminal.json("signup", email, "--name", "Ada"))["api_key"]
    address = (await terminal.json("billing", "upgrade", "pro", "--no-wait"))["checkout_url"]
    assert terminal.opened.read_text() == address
    form = {"email": email, "cardNumber": PAYS, "cardExpiry": "12/34", "cardCvc": "123", "billingName": "Ada"}
    assert (await world.sandbox.post(address, data=form)).status_code == 303
    await _receipts(world, email)

    portal = await terminal.tollway("billing", "portal")
    (address,) = re.findall(r"https?://\S+/p/session/\S+", portal)
    assert terminal.opened.read_text() == address
    opened = await world.sandbox.get(address)
    assert opened.status_code == 200
    assert "Cancel plan" in opened.text
    assert key not in portal


async def test_a_cancelled_plan_shows_when_it_ends_instead_of_when_it_renews(world: World, terminal: Terminal) -> None:
    customer = await world.subscriber()
    (subscription,) = await customer.subscriptions()
    await world.stripe("POST", f"subscriptions/{subscription['id']}", cancel_at_period_end="true")
    billing = await until(customer.billing, lambda billing: billing["cancel_at_period_end"])
    await terminal.tollway("login", "--api-key", customer.key)
    shown = await terminal.tollway("billing")
    assert shown == f"Plan: pro\nStatus: active\nEnds: {billing['current_period_end']}\n"


async def test_events_tail_shows_a_tier_change_and_a_paid_invoice_as_they_happen(
    world: World, terminal: Terminal
) -> None:
    customer = await world.sign_up()
    async with terminal.start(
        "events", "tail", "--account", customer.id, "--type", "TierChanged", "--type", "InvoicePaid", "--from-start"
    ) as tail:
        await _line(tail, rf"TierChanged  {customer.id}  .*tier=free")
        await customer.subscribe()
        seen = {(await _line(tail, customer.id)).split()[1] for _ in range(2)}
        assert seen == {"TierChanged", "InvoicePaid"}


async def test_a_key_from_elsewhere_logs_in_and_a_wrong_one_is_refused_with_a_next_step(
    world: World, terminal: Terminal
) -> None:
    customer = await world.sign_up()
    await terminal.tollway("login", "--api-key", customer.key)
    assert await terminal.tollway("billing") == "Plan: free\nStatus: active\n"
    await terminal.tollway("logout")
    async with terminal.start("billing") as billing:
        _, told = await billing.communicate()
    assert billing.returncode != 0
    assert "tollway login" in told.decode()
    async with terminal.start("login", "--api-key", customer.key[:-1] + "_") as login:
        _, told = await login.communicate()
    assert login.returncode != 0
    assert "Traceback" not in told.decode()


async def test_a_tier_that_is_not_there_is_refused_in_words(terminal: Terminal) -> None:
    await terminal.tollway("signup", _email(), "--name", "Ada")
    async with terminal.start("billing", "upgrade", "platinum") as upgrade:
        _, told = await upgrade.communicate()
    assert upgrade.returncode not in {0, None}
    assert "tollway plans" in told.decode()
    assert not terminal.opened.exists()


async def test_plans_and_usage_show_what_is_sold_and_what_is_left(terminal: Terminal) -> None:
    await terminal.tollway("signup", _email(), "--name", "Ada")
    plans = await terminal.tollway("plans")
    for words in ("Free", "Pro", "Enterprise", "1,000,000", "100,000"):
        assert words in plans
    (messages,) = (await terminal.json("usage"))["meters"]
    assert (messages["used"], messages["limit"]) == (0, 100_000)
