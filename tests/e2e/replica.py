"""A second billing and a second gateway beside a running system: the same databases, and a webhook endpoint each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from local import ports
from local.readiness import http
from tests.infra.processes import end, start, wait_until_ready
from tests.infra.stack import Stack


@contextmanager
def second_replica(stack: Stack) -> Iterator[str]:
    """The second gateway's address. Stripe sends every event to both, signed with each one's secret."""
    gateway, billing = ports.reserve(), ports.reserve()
    url = f"http://127.0.0.1:{gateway}"
    with httpx.Client(base_url=stack.sandbox_url, auth=(stack.env["STRIPE_API_KEY"], ""), timeout=30) as stripe:
        form = {"url": f"{url}/webhooks/stripe", "enabled_events[]": "*"}
        endpoint = stripe.post("/v1/webhook_endpoints", data=form).raise_for_status().json()
        given = {
            **stack.env,
            "TOLLWAY_BILLING_PORT": str(billing),
            "TOLLWAY_BILLING_METRICS_PORT": "0",
            "TOLLWAY_BILLING_ADDR": f"127.0.0.1:{billing}",
            "TOLLWAY_GATEWAY_PORT": str(gateway),
            "STRIPE_WEBHOOK_SECRET": endpoint["secret"],
        }
        # Beside the others' logs, so that what is looked for there is looked for in these, too.
        logs = stack.folder / "state" / "logs"
        running = []
        try:
            for module, name in (("services.billing.main", "billing-2"), ("gateway.main", "gateway-2")):
                log = logs / f"{name}.log"
                running.append((start([sys.executable, "-m", module], log, given), log))
            process, log = running[-1]
            wait_until_ready(http(gateway, "/readyz"), process, log)
            yield url
            for process, log in running:
                assert process.poll() is None, f"{log.name} ended by itself"
        finally:
            stripe.delete(f"/v1/webhook_endpoints/{endpoint['id']}")
            for process, _ in reversed(running):
                end(process)
