"""What is still on its way through a local installation: webhooks, marks, outboxes, consumers, mails.

Looks from outside, at what lies in the databases and the stream, in the order in which things travel: what leaves one
place while we look is seen at the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import asyncpg
import httpx
import nats
from nats.js.errors import NotFoundError

from local.settings import DATABASES

STREAM = "TOLLWAY"
LOOKS = 2  # quota's announcements come back to billing: one look could miss what passes behind it
_POLL_S = 0.01

_WAITING = {
    "billing": """
        SELECT 'accounts to be read from Stripe', count(*) FROM billing_sync WHERE wanted > done
        UNION ALL SELECT 'events in billing''s outbox', count(*) FROM outbox WHERE publish_time IS NULL
    """,
    "quota": """
        SELECT 'usage totals of ended periods', count(*) FROM usage_announced WHERE NOT final AND period_end <= $1
        UNION ALL SELECT 'events in quota''s outbox', count(*) FROM outbox WHERE publish_time IS NULL
    """,
    # A mail that the server refused for now comes again by the wall clock, which nobody waits for here.
    "notify": """
        SELECT 'mails', count(*) FROM messages
        WHERE (state = 'pending' AND next_attempt_time <= now()) OR (state = 'sending' AND claim_until > now())
    """,
}


class Pipes:
    """Connections to everything that work travels through. An async context manager."""

    def __init__(self, env: Mapping[str, str], sandbox: httpx.AsyncClient) -> None:
        self._env = env
        self._sandbox = sandbox
        self._databases: dict[str, Any] = {}
        self._stream: Any = None

    async def __aenter__(self) -> Self:
        try:
            for name in DATABASES:
                dsn = self._env[f"TOLLWAY_{name.upper()}_DSN"].replace("postgresql+asyncpg", "postgresql")
                self._databases[name] = await asyncpg.connect(dsn, timeout=10)
            self._stream = await nats.connect(self._env["TOLLWAY_NATS_URL"], connect_timeout=5, allow_reconnect=False)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for database in self._databases.values():
            await database.close()
        if self._stream is not None:
            await self._stream.close()

    async def drained(self, business_now: datetime, within_s: float) -> dict[str, int]:
        """Waits until nothing is on its way; {} then, or after `within_s` what still is."""
        deadline = time.monotonic() + within_s
        clean = 0
        while True:
            waiting = await self.waiting(business_now, deadline - time.monotonic())
            clean = 0 if waiting else clean + 1
            if clean == LOOKS or (waiting and time.monotonic() > deadline):
                return waiting
            if waiting:
                await asyncio.sleep(_POLL_S)  # the places are many and none of them calls us

    async def waiting(self, business_now: datetime, patience_s: float = 0.0) -> dict[str, int]:
        """What is on its way now, by name; places with nothing are left out. Waits for webhooks up to `patience_s`."""
        found: dict[str, int] = {}
        asked = {"timeout": str(max(0.0, min(patience_s, 5.0)))}
        answer = await self._sandbox.post("/_sandbox/deliveries/drain", params=asked)
        answer.raise_for_status()
        found["webhooks"] = int(answer.json()["pending"])
        for name in ("billing", "quota"):
            found |= await self._rows(name, business_now)
        found |= await self._consumers()
        found |= await self._rows("notify", business_now)
        return {place: count for place, count in found.items() if count}

    async def _rows(self, name: str, business_now: datetime) -> dict[str, int]:
        values = (business_now,) if "$1" in _WAITING[name] else ()
        return {row[0]: row[1] for row in await self._databases[name].fetch(_WAITING[name], *values)}

    async def _consumers(self) -> dict[str, int]:
        """Events that a service of ours has not acted on. A person who follows the stream is not waited for."""
        try:
            consumers = await self._stream.jetstream(timeout=5).consumers_info(STREAM)
        except NotFoundError:
            return {}
        ours = [each for each in consumers if (each.config.durable_name or "").startswith(DATABASES)]
        return {
            f"events for {each.config.durable_name}": (each.num_pending or 0) + (each.num_ack_pending or 0)
            for each in ours
        }
