"""The official Stripe CLI, unmodified; skipped where it is not installed (`npm i -g @stripe/cli`, or STRIPE_CLI)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import Receiver, Running

_CLI = os.environ.get("STRIPE_CLI") or shutil.which("stripe")
pytestmark = pytest.mark.skipif(_CLI is None, reason="the Stripe CLI is not installed")


def _stripe(own: Running, home: Path, *arguments: str) -> str:
    assert _CLI is not None
    done = subprocess.run(
        [_CLI, *arguments, "--api-base", own.url],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "STRIPE_API_KEY": "sk_test_0123456789abcdefghij",
            "STRIPE_CLI_TELEMETRY_OPTOUT": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "event",
    [
        "checkout.session.completed",
        "customer.created",
        "customer.updated",
        "customer.deleted",
        "customer.discount.created",
        "customer.discount.deleted",
        "customer.discount.updated",
        "customer.source.created",
        "customer.source.updated",
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.trial_will_end",
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.payment_action_required",
        "invoice.updated",
        "invoice.voided",
        "invoice.sent",
        "invoice.deleted",
        "invoice.marked_uncollectible",
        "invoice.payment_succeeded",
        "invoiceitem.created",
        "checkout.session.expired",
        "charge.refunded",
        "charge.dispute.created",
        "charge.dispute.closed",
        "coupon.created",
        "coupon.deleted",
        "setup_intent.succeeded",
        "setup_intent.canceled",
        "payment_method.attached",
        "payment_method.detached",
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "charge.failed",
        "price.created",
    ],
)
def test_trigger_makes_the_event_happen(own: Running, receiver: Receiver, tmp_path: Path, event: str) -> None:
    _stripe(own, tmp_path, "trigger", event)
    receiver.wait_for(event)


def test_get_list_and_resend_work(own: Running, receiver: Receiver, tmp_path: Path) -> None:
    customer = own.customer(None)
    assert json.loads(_stripe(own, tmp_path, "get", f"/v1/customers/{customer['id']}"))["email"] == customer["email"]
    assert json.loads(_stripe(own, tmp_path, "customers", "list", "--limit", "1"))["data"][0]["id"] == customer["id"]
    event = receiver.wait_for("customer.created")[0].event["id"]
    endpoint = own.get("/v1/webhook_endpoints")["data"][0]["id"]
    _stripe(own, tmp_path, "events", "resend", event, "--webhook-endpoint", endpoint)
    assert receiver.wait_for("customer.created", 2)[1].event["id"] == event


def test_fixtures_of_ones_own_run_with_values_from_one_another(own: Running, tmp_path: Path) -> None:
    fixture = {
        "_meta": {"template_version": 0},
        "fixtures": [
            {"name": "who", "path": "/v1/customers", "method": "post", "params": {"email": "ada@example.com"}},
            {"name": "what", "path": "/v1/products", "method": "post", "params": {"name": "Pro"}},
            {
                "name": "price",
                "path": "/v1/prices",
                "method": "post",
                "params": {
                    "product": "${what:id}",
                    "unit_amount": 2900,
                    "currency": "usd",
                    "recurring": {"interval": "month"},
                },
            },
            {
                "name": "subscription",
                "path": "/v1/subscriptions",
                "method": "post",
                "params": {
                    "customer": "${who:id}",
                    "items": [{"price": "${price:id}"}],
                    "trial_period_days": 7,
                },
            },
        ],
    }
    file = tmp_path / "fixture.json"
    file.write_text(json.dumps(fixture))
    _stripe(own, tmp_path, "fixtures", str(file))
    subscription = own.get("/v1/subscriptions?expand[]=data.customer")["data"][0]
    assert (subscription["status"], subscription["customer"]["email"]) == ("trialing", "ada@example.com")
