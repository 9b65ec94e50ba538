"""A customer on a test clock of its own, moved from moment to moment."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conftest import Running

DAY, HOUR = 86_400, 3_600
START = int(datetime(2027, 1, 31, 12, tzinfo=UTC).timestamp())


class Timeline:
    """A customer on a test clock of its own."""

    def __init__(self, shop: Running, card: str | None = "pm_card_visa", start: int = START) -> None:
        self.shop = shop
        self.clock = shop.post("/v1/test_helpers/test_clocks", frozen_time=str(start))["id"]
        self.customer = shop.customer(card, test_clock=self.clock)["id"]

    def subscribe(self, price: str, **more: str) -> str:
        return str(self.shop.subscribe(self.customer, price, **more)["id"])

    def to(self, moment: int) -> None:
        path = f"/v1/test_helpers/test_clocks/{self.clock}"
        assert self.shop.post(f"{path}/advance", frozen_time=str(moment))["status"] == "advancing"
        deadline = time.monotonic() + 20
        while self.shop.get(path)["status"] != "ready":
            assert time.monotonic() < deadline, "the clock did not become ready"
            threading.Event().wait(0.01)

    def subscription(self, subscription: str) -> dict[str, Any]:
        return self.shop.get(f"/v1/subscriptions/{subscription}")

    def invoices(self) -> list[dict[str, Any]]:
        """Oldest first."""
        found: list[dict[str, Any]] = self.shop.get(f"/v1/invoices?customer={self.customer}&limit=100")["data"]
        return found[::-1]

    def use(self, card: str) -> None:
        method = self.shop.post(f"/v1/payment_methods/{card}/attach", customer=self.customer)["id"]
        self.shop.post(f"/v1/customers/{self.customer}", **{"invoice_settings[default_payment_method]": method})

    def events(self, **query: str) -> list[dict[str, Any]]:
        return [e for e in self.shop.events(**query) if e["data"]["object"].get("customer") == self.customer]
