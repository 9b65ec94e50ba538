"""Changing, cancelling and refunding a plan: what is shown first, what is asked, and what is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.cli.conftest import Cli, Gateway

BILLING = "/v1/orgs/adas-relay/billing"
OFFER = {
    "current_tier": "business",
    "tier": "scale",
    "total": 1550,
    "amount_due": 1550,
    "currency": "usd",
    "lines": [
        {"description": "Unused time on Business", "amount": -2450},
        {"description": "Remaining time on Scale", "amount": 4000},
    ],
    "proration_time": "2026-04-01T00:00:00Z",
    "counters": [
        {
            "limit": "requests",
            "meters": ["requests"],
            "used": 1200,
            "before": 10_000,
            "after": 50_000,
            "restarts": False,
        },
        {"limit": "burst", "meters": ["requests"], "used": 3, "before": 60, "after": None, "restarts": True},
    ],
}
SHOWN = """\
From business to scale:
  -24.50 USD  Unused time on Business
  40.00 USD  Remaining time on Scale
To pay now: 15.50 USD
  requests: 10,000 to 50,000, 1,200 used, kept
  burst: 60 to no limit, starts from zero
"""
REFUND = {
    "id": "rfd_1",
    "status": "refunded",
    "amount": 1500,
    "currency": "usd",
    "invoice_id": "in_1",
    "stripe_refund_id": "re_1",
    "used": 3,
    "created_at": "2026-04-01T00:00:00Z",
}


def answer(gateway: Gateway, route: str, value: Any) -> None:
    gateway.answers[route] = (200, {"Content-Type": "application/json"}, json.dumps(value).encode())


def offer_refund(gateway: Gateway, **more: Any) -> None:
    due = {"eligible": True, "reason": None, "message": "Due.", "amount": 1500, "currency": "usd", "refund": None}
    answer(gateway, f"GET {BILLING}/refund", due | more)
    answer(gateway, f"POST {BILLING}/refund", REFUND)


def posted(gateway: Gateway) -> list[tuple[str, Any]]:
    return [(path, body) for method, path, body, _ in gateway.calls if method == "POST"]


def test_a_change_shows_its_invoice_and_counters_and_is_made_at_that_price(logged_in: Cli, gateway: Gateway) -> None:
    answer(gateway, f"GET {BILLING}/preview?tier=scale", OFFER)
    answer(gateway, f"POST {BILLING}/change", {"tier": "scale"})
    assert logged_in("billing", "preview", "scale").stdout == SHOWN
    refused = logged_in("billing", "change", "scale", code=2)  # nobody is there to say yes
    assert refused.stderr == SHOWN + "error: not confirmed\nnext:  add --yes\n"
    assert posted(gateway) == []
    assert logged_in("billing", "change", "scale", "--yes").stdout == "You are on scale.\n"
    sent = {"tier": "scale", "proration_time": "2026-04-01T00:00:00Z"}
    assert posted(gateway) == [(f"{BILLING}/change", sent)]


def test_a_plan_is_cancelled_and_taken_back(logged_in: Cli, gateway: Gateway) -> None:
    answer(gateway, f"POST {BILLING}/cancel", {"ends_at": "2026-05-01T00:00:00Z"})
    answer(gateway, f"POST {BILLING}/resume", {"cancel_at_period_end": False})
    assert logged_in("billing", "cancel").stdout == (
        "Ends: 2026-05-01T00:00:00Z. Take it back: tollway billing resume\n"
    )
    assert logged_in("billing", "resume").stdout == "The plan renews as before.\n"


def test_a_refund_says_first_that_it_ends_the_subscription(logged_in: Cli, gateway: Gateway) -> None:
    offer_refund(gateway)
    refused = logged_in("billing", "refund", code=2)
    assert "15.00 USD will be refunded, and the subscription ends at once." in refused.stderr
    assert posted(gateway) == []
    assert logged_in("billing", "refund", "--yes").stdout == "Refunded 15.00 USD. The subscription has ended.\n"
    assert json.loads(logged_in("billing", "refund", "--yes", "--json").stdout) == REFUND


@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_a_refund_that_is_not_due_is_refused_in_the_policys_words(
    logged_in: Cli, gateway: Gateway, yes: list[str]
) -> None:
    offer_refund(gateway, eligible=False, reason="refund_window_over", message="The time for a refund is over.")
    assert "The time for a refund is over." in logged_in("billing", "refund", *yes, code=4).stderr
    assert posted(gateway) == []


def test_without_a_plan_the_only_one_is_bought_and_several_are_named(logged_in: Cli, gateway: Gateway) -> None:
    logged_in("billing", "upgrade", "--no-wait")
    assert posted(gateway) == [(f"{BILLING}/checkout", {"tier": "pro"})]
    plans = [{"tier": name, "prices": [{}]} for name in ("business", "scale")]
    answer(gateway, "GET /v1/plans", {"product": "Vatly", "plans": plans})
    assert "tollway billing upgrade business|scale" in logged_in("billing", "upgrade", code=2).stderr
