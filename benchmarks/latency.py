"""From Stripe's webhook to the limit that quota enforces: `python -m benchmarks.latency [SAMPLES]`.

A sample: an account has paid at Stripe, and nothing was told yet. Then the webhook's bytes are written to the gateway
and quota is asked (Consume, dry run) until it decides by the new limit. Once with one event
(`customer.subscription.created`), once with all that a checkout causes at the same moment, each with Stripe
answering as fast as the stand-in can and with 150 ms added to every call.

"Beyond Stripe" is the whole minus the one read of the subscriptions that the path needs, from its first byte out to
its last byte back, as a relay between billing and Stripe saw it. Every read that follows is ours to bear.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import statistics
import sys
import time
from collections import defaultdict
from datetime import datetime
from typing import Any

import asyncpg
import grpc
import httpx
import uvloop

from benchmarks import common
from benchmarks.system import StripeCall, System, running
from services.billing.application.webhooks import HANDLED
from tollway.quota.v1 import quota_pb2, quota_pb2_grpc

SAMPLES = 60
WARM = 5
METER = "messages"
NEW_LIMIT = 1_000_000
BETWEEN_ASKS_S = 0.002
GIVE_UP_S = 20.0
READ = "GET /v1/subscriptions"


class Bench:
    def __init__(self, system: System) -> None:
        self._system = system
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{system.port('gateway')}", timeout=20, trust_env=False
        )
        self._stripe = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{system.stripe_port}",
            auth=(system.env["STRIPE_API_KEY"], ""),
            timeout=20,
            trust_env=False,
        )
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{system.port('quota')}")
        self._quota = quota_pb2_grpc.QuotaServiceStub(self._channel)
        self._rpc = (("authorization", f"Bearer {system.env['TOLLWAY_RPC_TOKEN']}"),)
        self._numbers = iter(range(10**9))
        self._databases: list[Any] = []

    async def open(self) -> None:
        for name in ("billing", "quota", "notify"):
            dsn = self._system.env[f"TOLLWAY_{name.upper()}_DSN"].replace("postgresql+asyncpg", "postgresql")
            self._databases.append(await asyncpg.connect(dsn))

    async def close(self) -> None:
        await self._http.aclose()
        await self._stripe.aclose()
        await self._channel.close()
        for database in self._databases:
            await database.close()

    async def slow(self, milliseconds: int) -> None:
        answer = await self._stripe.put("/_sandbox/faults", json={"latency_ms": milliseconds})
        answer.raise_for_status()

    async def customer(self) -> tuple[str, str]:
        """An account with an open checkout page: the account's and the session's id."""
        number = next(self._numbers)
        body = {"email": f"bench-{number}@example.com", "name": f"Bench {number}"}
        made = (await self._http.post("/v1/signup", json=body)).raise_for_status().json()
        answer = await self._http.post(
            "/v1/billing/checkout", json={"tier": "pro"}, headers={"Authorization": f"Bearer {made['api_key']}"}
        )
        return made["account"]["id"], answer.raise_for_status().json()["checkout_url"].rpartition("/")[2]

    async def pay(self, session: str) -> list[dict[str, Any]]:
        """Pays at Stripe. The events of it that billing listens to, the oldest first."""
        form = {"type": "card", "card[token]": "tok_visa"}
        method = (await self._stripe.post("/v1/payment_methods", data=form)).raise_for_status().json()
        paid = await self._stripe.post(f"/v1/payment_pages/{session}/confirm", data={"payment_method": method["id"]})
        customer = paid.raise_for_status().json()["customer"]
        newest = (await self._stripe.get("/v1/events", params={"limit": 100})).raise_for_status().json()["data"]
        return [
            event
            for event in reversed(newest)
            if event["type"] in HANDLED and event["data"]["object"].get("customer") == customer
        ]

    async def sample(self, *, all_events: bool) -> dict[str, float]:
        """Milliseconds: in all, Stripe's part, and how the rest was spent."""
        account_id, session = await self.customer()
        events = await self.pay(session)
        if not all_events:
            events = [event for event in events if event["type"] == "customer.subscription.created"]
        if not events:
            raise RuntimeError("the payment caused no event")
        if await self._limit(account_id) == NEW_LIMIT:
            raise RuntimeError("the limit was lifted before the webhook came")
        await self.quiet()
        requests = [self.signed(event) for event in events]
        connections = [await asyncio.open_connection("127.0.0.1", self._system.port("gateway")) for _ in requests]
        self._system.relay.forget()
        wall, began = time.time(), time.perf_counter()
        for (_, writer), request in zip(connections, requests, strict=True):
            writer.write(request)
        # Before Stripe is read nothing can change: asking then would only be load.
        await asyncio.wait_for(self._system.relay.answered(READ), GIVE_UP_S)
        while await self._limit(account_id) != NEW_LIMIT:
            if time.perf_counter() > began + GIVE_UP_S:
                raise RuntimeError(f"the limit was not lifted within {GIVE_UP_S:.0f} s")
            await asyncio.sleep(BETWEEN_ASKS_S)  # asking without a pause would be load of its own
        ended = time.perf_counter()
        read = next(call for call in self._system.relay.calls if call.what == READ)
        for reader, writer in connections:
            if b" 200 " not in await reader.readline():
                raise RuntimeError("a webhook was not answered 200")
            writer.close()
        await self.quiet()
        return await self._stages(account_id, wall - began, began, read, ended)

    async def _limit(self, account_id: str) -> int:
        request = quota_pb2.ConsumeRequest(account_id=account_id, meter=METER, amount=1, dry_run=True)
        answer = await self._quota.Consume(request, timeout=5, metadata=self._rpc)
        return answer.decision.limits[0].limit

    def signed(self, event: dict[str, Any]) -> bytes:
        """The whole request, as Stripe sends it."""
        payload, now = json.dumps(event).encode(), int(time.time())
        secret = self._system.env["STRIPE_WEBHOOK_SECRET"].encode()
        digest = hmac.new(secret, f"{now}.".encode() + payload, hashlib.sha256).hexdigest()
        head = (
            "POST /webhooks/stripe HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Stripe-Signature: t={now},v1={digest}\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        return head.encode() + payload

    async def quiet(self) -> None:
        """Returns when nothing is under way any more: the next sample must not pay for this one."""
        billing, _, notify = self._databases
        while True:
            waiting = await billing.fetchval(
                "SELECT (SELECT count(*) FROM billing_sync WHERE wanted > done)"
                " + (SELECT count(*) FROM outbox WHERE publish_time IS NULL)"
            )
            waiting += await notify.fetchval("SELECT count(*) FROM messages WHERE state IN ('pending', 'sending')")
            if waiting == 0:
                return
            await asyncio.sleep(0.01)  # three processes: there is no one thing to await

    async def _stages(
        self, account_id: str, offset: float, began: float, read: StripeCall, ended: float
    ) -> dict[str, float]:
        """What the databases' clocks say of the way; `offset` turns our clock into theirs (one machine)."""
        billing, quota, _ = self._databases
        decided: datetime = await billing.fetchval(
            "SELECT change_time FROM entitlement WHERE account_id = $1", account_id
        )
        event, published = await billing.fetchrow(
            "SELECT id, publish_time FROM outbox WHERE account_id = $1 AND type LIKE '%.EntitlementsChanged'"
            " ORDER BY id DESC LIMIT 1",
            account_id,
        )
        received: datetime = await quota.fetchval("SELECT receive_time FROM inbox WHERE id = $1", event)
        marks = [
            began,
            read.begin,
            read.end,
            decided.timestamp() - offset,
            published.timestamp() - offset,
            received.timestamp() - offset,
            ended,
        ]
        stripe = read.end - read.begin
        return {
            "raw": (ended - began) * 1000,
            "stripe": stripe * 1000,
            "beyond": (ended - began - stripe) * 1000,
            "until_read": (marks[1] - marks[0]) * 1000,
            "read_to_decided": (marks[3] - marks[2]) * 1000,
            "decided_to_quota": (marks[5] - marks[3]) * 1000,
            "quota_to_enforced": (marks[6] - marks[5]) * 1000,
        }


def _percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))], 1)


async def _measure(samples: int) -> dict[str, Any]:
    async with running() as system:
        bench = Bench(system)
        await bench.open()
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        try:
            for latency in (0, 150):
                await bench.slow(latency)
                for _ in range(WARM):
                    await bench.sample(all_events=True)
                for _ in range(samples):  # in turns: both see the same machine
                    for all_events in (False, True):
                        name = f"{'all_events' if all_events else 'one_event'}_{latency}ms"
                        found[name].append(await bench.sample(all_events=all_events))
            rss = system.rss_mb()
        finally:
            await bench.close()
    shown: dict[str, Any] = {}
    for name, of_one in found.items():
        columns = {key: [sample[key] for sample in of_one] for key in of_one[0]}
        shown[name] = {
            "samples": len(of_one),
            **{f"{key}_p{p}_ms": _percentile(columns[key], p) for key in ("raw", "beyond") for p in (50, 99)},
            "stripe_p50_ms": _percentile(columns["stripe"], 50),
            "stages_p50_ms": {
                key: round(statistics.median(values), 1)
                for key, values in columns.items()
                if key not in {"raw", "beyond", "stripe"}
            },
        }
    return {"scenarios": shown, "rss_mb": rss}


def measure(samples: int = SAMPLES) -> dict[str, Any]:
    """Latencies in milliseconds by scenario, and each service's RSS in MB, idle after that load."""
    return uvloop.run(_measure(samples))


def report(numbers: dict[str, Any]) -> str:
    rows = [("webhook → quota enforces", "beyond p50", "p99", "raw p50", "p99", "Stripe p50", "samples")]
    for name, cells in numbers["scenarios"].items():
        figures = ("beyond_p50_ms", "beyond_p99_ms", "raw_p50_ms", "raw_p99_ms", "stripe_p50_ms")
        rows.append((name, *(f"{cells[figure]:.1f} ms" for figure in figures), str(cells["samples"])))
    lines = [common.table("", rows).strip()]
    for name, cells in numbers["scenarios"].items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in cells["stages_p50_ms"].items()))
    return "\n".join([*lines, f"RSS in MB: {numbers['rss_mb']}"])


def main() -> None:
    print(report(measure(int(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES)))


if __name__ == "__main__":
    main()
