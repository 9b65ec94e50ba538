"""Sends events to webhook endpoints, signed, several at once, and again after failures with growing pauses.

What is to be sent lies in the database, so a restart goes on where the process died. A delivery that was answered just
before a crash is sent once more: receivers must expect duplicates anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import time
from dataclasses import dataclass
from typing import Any

from . import events
from .poster import Poster
from .store import Store, encode

log = logging.getLogger("stripe_sandbox")


@dataclass(frozen=True)
class RetryPolicy:
    # Seconds before the first retry; each further pause is twice as long, up to the longest.
    base: float = 1.0
    longest: float = 30.0
    attempts: int = 20
    # Seconds within which an endpoint must answer.
    timeout: float = 10.0

    def pause(self, attempts: int) -> float:
        return float(min(self.longest, self.base * 2.0 ** min(attempts - 1, 30)))


def signature(secret: str, payload: bytes, at: int) -> str:
    """The `Stripe-Signature` header (https://docs.stripe.com/webhooks#verify-manually); `at` is wall time."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class Deliverer:
    def __init__(self, store: Store, policy: RetryPolicy, *, concurrency: int = 32) -> None:
        self._store = store
        self._policy = policy
        self._concurrency = concurrency
        self._wake = asyncio.Event()
        self._settled = asyncio.Condition()
        self._flying: dict[int, asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None
        self._poster = Poster(policy.timeout)

    def start(self) -> None:
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        tasks = [*self._flying.values(), *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._poster.close()

    def wake(self) -> None:
        self._wake.set()

    def pending(self) -> int:
        row = self._store.db.execute("SELECT count(*) FROM deliveries WHERE status = 'pending'").fetchone()
        return int(row[0])

    async def drain(self, at_most: float) -> int:
        """Waits until nothing is pending, at most so many seconds; returns what still is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most), self._settled:
                await self._settled.wait_for(lambda: self.pending() == 0)
        return self.pending()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            now = time.time()
            rows = self._store.db.execute(
                "SELECT id, next_at FROM deliveries WHERE status = 'pending' ORDER BY next_at, id LIMIT ?",
                (self._concurrency + len(self._flying) + 1,),
            ).fetchall()
            waiting: float | None = None
            for delivery, next_at in rows:
                if delivery in self._flying:
                    continue
                if next_at > now:
                    waiting = next_at - now
                    break
                if len(self._flying) >= self._concurrency:
                    break
                self._flying[delivery] = asyncio.create_task(self._deliver(delivery))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(waiting):
                    await self._wake.wait()

    async def _deliver(self, delivery: int) -> None:
        try:
            await self._attempt(delivery)
        except Exception:
            # Left pending it would be tried again at once, for ever.
            log.exception("delivery %s failed", delivery)
            self._store.db.execute("UPDATE deliveries SET status = 'failed' WHERE id = ?", (delivery,))
        finally:
            del self._flying[delivery]
            self._wake.set()
            async with self._settled:
                self._settled.notify_all()

    async def _attempt(self, delivery: int) -> None:
        event_id, endpoint_id, attempts = self._store.db.execute(
            "SELECT event, endpoint, attempts FROM deliveries WHERE id = ?", (delivery,)
        ).fetchone()
        event, endpoint = self._store.get(event_id), self._store.get(endpoint_id)
        if event is None or endpoint is None:
            self._record(delivery, "failed", attempts, None, "the endpoint is gone")
            return
        payload = encode(events.as_sent(self._store, event)).encode()
        status, error = await self._post(endpoint, payload)
        attempts += 1
        if status is not None and 200 <= status < 300:
            self._record(delivery, "succeeded", attempts, status, None)
        elif attempts >= self._policy.attempts:
            self._record(delivery, "failed", attempts, status, error)
        else:
            self._record(delivery, "pending", attempts, status, error, time.time() + self._policy.pause(attempts))

    async def _post(self, endpoint: dict[str, Any], payload: bytes) -> tuple[int | None, str | None]:
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": signature(endpoint["_secret"], payload, int(time.time())),
        }
        try:
            status, text = await self._poster.post(endpoint["url"], headers, payload)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            return None, type(error).__name__
        return status, None if 200 <= status < 300 else text

    def _record(
        self, delivery: int, status: str, attempts: int, code: int | None, error: str | None, next_at: float = 0
    ) -> None:
        self._store.db.execute(
            "UPDATE deliveries SET status = ?, attempts = ?, last_status = ?, last_error = ?, next_at = ? WHERE id = ?",
            (status, attempts, code, error, next_at, delivery),
        )
