"""A sandbox without a server: calls of its API at moments of one test clock."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import local.stripe_sandbox.api  # noqa: F401 - registers the routes
from local.stripe_sandbox.context import Context
from local.stripe_sandbox.errors import ApiError
from local.stripe_sandbox.routing import routes
from local.stripe_sandbox.sandbox import Sandbox, Settings

START = 1_800_000_000


class World:
    def __init__(self, state: Path) -> None:
        self.sandbox = Sandbox(Settings(state, "http://127.0.0.1:1"))
        self.clock = ""
        self.clock = self.call("POST", "/v1/test_helpers/test_clocks", frozen_time=str(START))["id"]
        self.product = self.call("POST", "/v1/products", name="Pro")["id"]
        self.customer = self.call(
            "POST",
            "/v1/customers",
            test_clock=self.clock,
            payment_method="pm_card_visa",
            invoice_settings={"default_payment_method": "pm_card_visa"},
        )["id"]

    def price(self, amount: int, days: int = 30, **more: Any) -> str:
        recurring = {"interval": "day", "interval_count": str(days)} | more.pop("recurring", {})
        given = {"unit_amount": str(amount)} if "tiers" not in more else {}
        made = self.call(
            "POST", "/v1/prices", product=self.product, currency="usd", recurring=recurring, **given, **more
        )
        return str(made["id"])

    def call(self, method: str, path: str, at: int | None = None, /, **params: Any) -> dict[str, Any]:
        """The answer of a route; at the clock's time unless another moment is given. Raises ApiError."""
        found = routes.find(method, path)
        assert found is not None, path
        route, values = found

        def work(ctx: Context) -> dict[str, Any]:
            if at is not None:
                ctx.as_of[self.clock] = at
            return route.handler(ctx, route.check(params), **values)

        # Not `Sandbox.run`: what follows its commit, deliveries and clocks, is for a running loop.
        kept: ApiError | None = None
        with self.sandbox.store.transaction():
            try:
                return work(self.sandbox.context())
            except ApiError as error:
                if not error.keep:
                    raise
                kept = error
        raise kept

    def all(self, kind: str) -> list[dict[str, Any]]:
        return self.sandbox.store.all(kind, customer=self.customer)

    def now(self) -> int:
        return int(self.call("GET", f"/v1/test_helpers/test_clocks/{self.clock}")["frozen_time"])

    def advance(self, seconds: int) -> None:
        """Moves the clock through all due work; raises AssertionError when some of it failed."""
        path = f"/v1/test_helpers/test_clocks/{self.clock}"
        self.call("POST", f"{path}/advance", frozen_time=str(self.now() + seconds))
        asyncio.run(self.sandbox.timekeeper.finish(self.clock))
        assert self.call("GET", path)["status"] == "ready"


@contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as directory:
        made = World(Path(directory))
        try:
            yield made
        finally:
            made.sandbox.store.close()
