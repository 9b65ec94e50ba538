"""The official Stripe CLI, unmodified: STRIPE_CLI, else the one on the PATH, else npm's package `@stripe/cli`. Skipped
where there is none of these."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from .conftest import Receiver, Running

_PACKAGE = "@stripe/cli@1.52.0"
_NPM_S = 60


class Stripe(Protocol):
    def __call__(self, *arguments: str) -> str: ...


def _from_npm(folder: Path) -> Path:
    """The package's binary, kept between runs."""
    binary = folder / "node_modules" / ".bin" / "stripe"
    if binary.exists():
        return binary
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("the Stripe CLI is not installed, and there is no npm to get it with")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", _PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_NPM_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the Stripe CLI is not installed, and npm did not bring it within {_NPM_S} s")
    if done.returncode or not binary.exists():
        pytest.skip(f"the Stripe CLI is not installed, and npm does not bring it: {done.stderr.strip()[-300:]}")
    return binary


@pytest.fixture(scope="module")
def cli(pytestconfig: pytest.Config) -> Path:
    there = os.environ.get("STRIPE_CLI") or shutil.which("stripe")
    if there:
        return Path(there)
    assert pytestconfig.cache is not None
    return _from_npm(pytestconfig.cache.mkdir("stripe-cli"))


@pytest.fixture
def run(cli: Path, own: Running, tmp_path: Path) -> Stripe:
    """Runs the CLI against the sandbox; what it prints."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(cli), *arguments, "--api-base", own.url],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
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

    return run


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
def test_trigger_makes_the_event_happen(run: Stripe, receiver: Receiver, event: str) -> None:
    run("trigger", event)
    receiver.wait_for(event)


def test_get_list_and_resend_work(run: Stripe, own: Running, receiver: Receiver) -> None:
    customer = own.customer(None)
    assert json.loads(run("get", f"/v1/customers/{customer['id']}"))["email"] == customer["email"]
    assert json.loads(run("customers", "list", "--limit", "1"))["data"][0]["id"] == customer["id"]
    event = receiver.wait_for("customer.created")[0].event["id"]
    endpoint = own.get("/v1/webhook_endpoints")["data"][0]["id"]
    run("events", "resend", event, "--webhook-endpoint", endpoint)
    assert receiver.wait_for("customer.created", 2)[1].event["id"] == event


def test_fixtures_of_ones_own_run_with_values_from_one_another(run: Stripe, own: Running, tmp_path: Path) -> None:
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
    run("fixtures", str(file))
    subscription = own.get("/v1/subscriptions?expand[]=data.customer")["data"][0]
    assert (subscription["status"], subscription["customer"]["email"]) == ("trialing", "ada@example.com")
