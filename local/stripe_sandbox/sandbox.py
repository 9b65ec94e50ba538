"""The sandbox put together: state, clock, deliverer, faults, and one way to run a unit of work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from . import idempotency, webhooks
from .clock import DefaultClock, Timekeeper
from .context import Context
from .deliverer import Deliverer, RetryPolicy
from .errors import ApiError
from .faults import Faults
from .store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    state: Path
    base_url: str
    clock_file: Path | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    # The seller's name on pages and invoices; empty leaves the one that was set before.
    business_name: str = ""


class Sandbox:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.state)
        self.clock = DefaultClock(settings.clock_file or settings.state / "clock")
        self.faults = Faults()
        self.deliverer = Deliverer(self.store, settings.retry)
        self.timekeeper = Timekeeper(self.store, self.clock, self.context, self.committed)
        idempotency.forget_old(self.store)
        # Idempotency keys whose first request has not been answered yet.
        self.in_flight: set[str] = set()
        if settings.business_name:
            self.store.set_setting("business_name", settings.business_name)
        if settings.webhook_url is not None:
            webhooks.preset(self.store, settings.webhook_url, settings.webhook_secret or "", int(time.time()))

    def start(self) -> None:
        self.deliverer.start()
        self.timekeeper.start()

    async def stop(self) -> None:
        await self.timekeeper.stop()
        await self.deliverer.stop()
        self.store.close()

    def context(self, request_id: str | None = None, idempotency_key: str | None = None) -> Context:
        return Context(
            store=self.store,
            default_now=self.clock.now,
            base_url=self.settings.base_url,
            request_id=request_id,
            idempotency_key=idempotency_key,
        )

    def committed(self, ctx: Context) -> None:
        """What follows a commit: its events go out, its clocks start."""
        for clock in ctx.clocks:
            self.timekeeper.advance_test_clock(clock)
        if not ctx.deliveries:
            return
        if self.faults.touches_webhooks:
            with self.store.transaction():
                self.faults.disturb(self.store, ctx.deliveries)
        self.deliverer.wake()

    def run(self, ctx: Context, work: Callable[[Context], T]) -> T:
        """One unit of work. An ApiError undoes it, unless what it wrote is to be kept."""
        kept: ApiError | None = None
        with self.store.transaction():
            try:
                result = work(ctx)
            except ApiError as error:
                if not error.keep:
                    raise
                kept = error
        self.committed(ctx)
        if kept is not None:
            raise kept
        return result
