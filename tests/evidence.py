"""What a system holds at one moment, read from outside: databases, stream, Stripe, mailbox, logs.

Only reads. `tests/invariants.py` judges it. Rows are plain dicts, so that a test can plant a violation in a copy.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import nats
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

STREAM = "TOLLWAY"
Row = dict[str, Any]

_TABLES = {
    "billing": (
        "account",
        "api_key",
        "entitlement",
        "subscription",
        "invoice",
        "checkout",
        "webhook_event",
        "billing_sync",
        "price_tier",
        "override",
        "charge_reversal",
        "outbox",
    ),
    "quota": ("account", "plan", "idem", "lease", "inbox", "api_key"),
    "notify": ("messages", "inbox", "resends", "erased_accounts"),
}
_SECRETS = ("TOLLWAY_SECRET_KEY", "TOLLWAY_OPERATOR_TOKEN", "TOLLWAY_RPC_TOKEN", "STRIPE_API_KEY")


@dataclass(frozen=True)
class Use:
    """A POST /v1/usage with an Idempotency-Key that was answered 200."""

    account_id: str
    key: str
    meter: str
    amount: int


@dataclass
class Told:
    """What a driver was told, and so must be true: keys by account, keys that ended, uses, tiers that were paid for."""

    keys: dict[str, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)  # key → account
    uses: list[Use] = field(default_factory=list)
    tiers: dict[str, str] = field(default_factory=dict)


@dataclass
class Evidence:
    billing: dict[str, list[Row]]
    quota: dict[str, list[Row]]
    notify: dict[str, list[Row]]
    stream: list[Row]  # id, subject, type, data
    dead: list[str]  # subjects of buried events
    subscriptions: list[Row]  # as Stripe shows them
    invoices: list[Row]
    events: list[Row]
    undelivered: dict[str, str]  # event id → why: pending, failed, dropped
    mails: list[Row]  # MessageID and text
    logs: dict[str, str]
    catalog: Path
    secrets: list[str]  # of the installation, that nothing may show
    read_time: datetime


async def gather(env: Mapping[str, str], state: Path, log: Path | None = None) -> Evidence:
    """`env` is the system's `env` file, `state` its state folder, `log` the supervisor's own words if kept."""
    # The sides before the centre: an event that comes while we read is found at its origin, not missed there.
    stream, dead = await _events(env["TOLLWAY_NATS_URL"])
    mails = await _mails(f"http://127.0.0.1:{env['TOLLWAY_MAILBOX_PORT']}")
    notify, quota, billing = [
        await _rows(env[f"TOLLWAY_{name.upper()}_DSN"], _TABLES[name]) for name in ("notify", "quota", "billing")
    ]
    base, key = env["STRIPE_API_BASE"], env["STRIPE_API_KEY"]
    async with httpx.AsyncClient(base_url=base, auth=(key, ""), timeout=30, trust_env=False) as stripe:
        subscriptions, invoices, events = await asyncio.gather(
            _all(stripe, "subscriptions", status="all"), _all(stripe, "invoices"), _all(stripe, "events")
        )
        deliveries = (await stripe.get("/_sandbox/deliveries")).json()
    undelivered = {each["event"]: each["status"] for each in (*deliveries["pending"], *deliveries["failed"])}
    paths = [*sorted((state / "logs").iterdir()), *([log] if log is not None else [])]
    secrets = [env[name] for name in _SECRETS if env.get(name)]
    # A rotated webhook secret is several values.
    secrets += [part for part in re.split(r"[\s,]+", env.get("STRIPE_WEBHOOK_SECRET", "")) if part]
    return Evidence(
        billing=billing,
        quota=quota,
        notify=notify,
        stream=stream,
        dead=dead,
        subscriptions=subscriptions,
        invoices=invoices,
        events=events,
        undelivered=undelivered,
        mails=mails,
        logs={path.name: path.read_text(errors="replace") for path in paths},
        catalog=Path(env["CATALOG"]),
        secrets=secrets,
        read_time=datetime.now(UTC),
    )


async def _rows(dsn: str, tables: tuple[str, ...]) -> dict[str, list[Row]]:
    """All rows of the tables, as one snapshot."""
    connection = await asyncpg.connect(dsn.replace("postgresql+asyncpg", "postgresql"), timeout=10)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {
                table: [dict(row) for row in await connection.fetch(f'SELECT * FROM "{table}"')] for table in tables
            }
    finally:
        await connection.close()


async def _events(url: str) -> tuple[list[Row], list[str]]:
    client = await nats.connect(url, connect_timeout=5, allow_reconnect=False)
    try:
        found = [
            {
                "id": (message.headers or {}).get("ce-id", ""),
                "type": (message.headers or {}).get("ce-type", ""),
                "subject": message.subject,
                "data": message.data,
            }
            for message in await _messages(client, STREAM)
        ]
        return found, [message.subject for message in await _messages(client, f"{STREAM}_DEAD")]
    finally:
        await client.close()


async def _messages(client: Any, stream: str) -> list[Any]:
    jetstream = client.jetstream(timeout=10)
    try:
        info = await jetstream.stream_info(stream)
    except NotFoundError:
        return []
    if info.state.messages == 0:
        return []
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=30.0, mem_storage=True
    )
    consumer = await jetstream.add_consumer(stream, config)
    subscription = await jetstream.pull_subscribe_bind(consumer.name, stream=stream)
    found: list[Any] = []
    try:
        while not found or found[-1].metadata.num_pending:
            found += await subscription.fetch(256, timeout=5)
    except NatsTimeoutError:
        raise RuntimeError(f"the stream {stream} gave {len(found)} of {info.state.messages} messages") from None
    finally:
        await subscription.unsubscribe()
        await jetstream.delete_consumer(stream, consumer.name)
    return found


async def _all(stripe: httpx.AsyncClient, kind: str, **query: str) -> list[Row]:
    found: list[Row] = []
    more: dict[str, str] = {}
    while True:
        answer = await stripe.get(f"/v1/{kind}", params={"limit": "100", **query, **more})
        answer.raise_for_status()
        page = answer.json()
        found += page["data"]
        if not page["has_more"]:
            return found
        more = {"starting_after": found[-1]["id"]}


async def _mails(url: str) -> list[Row]:
    found: list[Row] = []
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as mailbox:
        while True:
            answer = await mailbox.get("/api/v1/messages", params={"limit": 500, "start": len(found)})
            answer.raise_for_status()
            page = answer.json()["messages"]
            found += page
            if len(page) < 500:
                return found
