"""What the doctor makes of Stripe's answers: a real HTTP server that answers as Stripe would."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.billing.application.webhooks import HANDLED
from services.billing.catalog import load_catalog
from services.doctor.finding import Finding
from services.doctor.stripes import Stripe
from tests.integration.billing.conftest import settings

PUBLIC = "https://api.example.com"
HOOK = f"{PUBLIC}/webhooks/stripe"
DAY = 86_400


class Account:
    """A seller's account at Stripe, in good order."""

    url = ""
    refuses = 0
    ahead_s = 0.0

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {
            "webhook_endpoints": [{"url": HOOK, "status": "enabled", "enabled_events": sorted(HANDLED)}],
            "events": [],
            "invoices": [],
        }

    def answer(self, path: str) -> tuple[int, Any]:
        if self.refuses:
            return self.refuses, {"error": {"message": "no"}}
        name = path.removeprefix("/v1/").partition("?")[0]
        return (200, {"id": "acct_1"}) if name == "account" else (200, {"data": self.lists[name]})


@pytest.fixture
def account() -> Iterator[Account]:
    found = Account()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, value = found.answer(self.path)
            body = json.dumps(value).encode()
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + found.ahead_s, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: pytest's output is for pytest."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


async def look(account: Account, **more: Any) -> dict[str, Finding]:
    chosen = settings(
        "postgresql+asyncpg://u:p@127.0.0.1:9/x", local=False, rpc_token="t" * 32, public_url=PUBLIC, **more
    )
    stripe = Stripe(chosen, account.url)
    try:
        catalog = load_catalog(Path("catalogs/manashiki.yaml"))
        return {found.check: found async for found in stripe.examine(catalog)}
    finally:
        await stripe.close()


async def states(account: Account) -> dict[str, str]:
    return {name: str(found.state) for name, found in (await look(account)).items()}


async def test_an_account_in_good_order(account: Account) -> None:
    assert await states(account) == {
        "Stripe key": "ok",
        "clock": "ok",
        "Stripe mode": "warn",  # a test key outside local mode
        "webhook endpoint": "ok",
        "events from Stripe": "ok",
        "retries and grace": "skip",
    }


async def test_a_key_that_stripe_does_not_know_ends_the_look(account: Account) -> None:
    account.refuses = 401
    assert await states(account) == {"Stripe key": "fail", "clock": "ok"}


async def test_a_restricted_key_is_told_what_it_may_not_read(account: Account) -> None:
    account.refuses = 403
    found = await states(account)
    assert found["Stripe key"] == "warn"
    assert {found[name] for name in ("webhook endpoint", "events from Stripe", "retries and grace")} == {"skip"}


@pytest.mark.parametrize(("ahead_s", "state"), [(0, "ok"), (-30, "warn"), (30, "warn"), (-600, "fail"), (600, "fail")])
async def test_a_clock_that_is_wrong_is_told_before_webhooks_are_refused(
    account: Account, ahead_s: float, state: str
) -> None:
    account.ahead_s = ahead_s
    clock = (await look(account))["clock"]
    assert clock.state == state
    if ahead_s:
        assert ("behind" if ahead_s > 0 else "ahead of") in clock.detail


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"url": "https://elsewhere.example/webhooks/stripe"}, "none for"),
        ({"status": "disabled"}, "is disabled"),
        ({"enabled_events": sorted(HANDLED - {"invoice.paid"})}, "does not send invoice.paid"),
    ],
)
async def test_an_endpoint_that_does_not_bring_what_counts(account: Account, change: Any, said: str) -> None:
    account.lists["webhook_endpoints"][0] |= change
    found = (await look(account))["webhook endpoint"]
    assert found.state == "fail"
    assert found.fix
    assert said in found.detail


async def test_an_endpoint_for_every_event_is_good(account: Account) -> None:
    account.lists["webhook_endpoints"][0]["enabled_events"] = ["*"]
    assert (await states(account))["webhook endpoint"] == "ok"


async def test_events_that_were_not_delivered_are_counted_if_they_count(account: Account) -> None:
    account.lists["events"] = [{"type": "invoice.paid"}, {"type": "product.created"}]
    found = (await look(account))["events from Stripe"]
    assert found.state == "warn"
    assert found.detail.startswith("1 of three days")


@pytest.mark.parametrize(("tried_after_days", "state"), [(6, "ok"), (8, "warn")])
async def test_retries_that_outlast_the_grace_are_seen_from_an_invoice_that_failed(
    account: Account, tried_after_days: int, state: str
) -> None:
    now = int(time.time())
    account.lists["invoices"] = [
        {
            "attempt_count": 1,
            "next_payment_attempt": now + tried_after_days * DAY,
            "status_transitions": {"finalized_at": now},
        },
        {"attempt_count": 0, "next_payment_attempt": now + 99 * DAY, "status_transitions": {"finalized_at": now}},
    ]
    assert (await states(account))["retries and grace"] == state
