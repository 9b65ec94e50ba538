"""Knobs that make the sandbox misbehave as networks and Stripe sometimes do. They are forgotten at restart."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields
from random import SystemRandom
from typing import Any

from .store import Store

_random = SystemRandom()


@dataclass
class ApiFault:
    """Answers the next calls under a path with an error, before doing the work or (`after`) with the work done."""

    status: int
    next: int = 1
    path: str = "/v1/"
    after: bool = False


@dataclass
class Faults:
    # Milliseconds that each API call waits before it is looked at.
    latency_ms: int = 0
    # Milliseconds between an event and its first delivery.
    webhook_delay_ms: int = 0
    # Each delivery is made twice.
    duplicate: bool = False
    # Deliveries of one change go out in a shuffled order, some tens of milliseconds apart.
    reorder: bool = False
    # Event types whose deliveries are lost; "*" loses all.
    drop: list[str] = field(default_factory=list)
    # How many coming deliveries are lost, whatever their type.
    drop_next: int = 0
    api_error: ApiFault | None = None
    # How many coming API calls are carried out but never answered.
    hang_next: int = 0

    def shown(self) -> dict[str, Any]:
        return asdict(self)

    def change(self, given: dict[str, Any]) -> None:
        """Sets the given knobs and leaves the others. Raises ValueError naming what is wrong."""
        known = {f.name: getattr(Faults(), f.name) for f in fields(self)}
        fresh: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"unknown fault: {name}")
            if name == "api_error":
                fresh[name] = None if value is None else _api_fault(value)
            elif type(value) is not type(known[name]):
                raise ValueError(f"{name} must be a {type(known[name]).__name__}")
            else:
                fresh[name] = value
        for name, value in fresh.items():
            setattr(self, name, value)

    def take_api_error(self, path: str) -> ApiFault | None:
        fault = self.api_error
        if fault is None or fault.next < 1 or not path.startswith(fault.path):
            return None
        fault.next -= 1
        if fault.next == 0:
            self.api_error = None
        return fault

    def take_hang(self) -> bool:
        if self.hang_next < 1:
            return False
        self.hang_next -= 1
        return True

    @property
    def touches_webhooks(self) -> bool:
        return bool(self.webhook_delay_ms or self.duplicate or self.reorder or self.drop or self.drop_next)

    def disturb(self, store: Store, deliveries: list[int]) -> None:
        """Applies the webhook knobs to deliveries that were just made."""
        now = time.time()
        kept: list[int] = []
        for delivery in deliveries:
            if self._drops(store, delivery):
                store.db.execute("UPDATE deliveries SET status = 'dropped' WHERE id = ?", (delivery,))
                continue
            kept.append(delivery)
            if self.duplicate:
                row = store.db.execute(
                    "INSERT INTO deliveries (event, endpoint, status, next_at)"
                    " SELECT event, endpoint, 'pending', next_at FROM deliveries WHERE id = ?",
                    (delivery,),
                )
                kept.append(int(row.lastrowid or 0))
        if self.reorder:
            _random.shuffle(kept)
        gap = 0.05 if self.reorder else 0.0
        for place, delivery in enumerate(kept):
            at = now + self.webhook_delay_ms / 1000 + place * gap
            store.db.execute("UPDATE deliveries SET next_at = ? WHERE id = ?", (at, delivery))

    def _drops(self, store: Store, delivery: int) -> bool:
        if self.drop_next > 0:
            self.drop_next -= 1
            return True
        if not self.drop:
            return False
        row = store.db.execute(
            "SELECT o.ref FROM deliveries d JOIN objects o ON o.id = d.event WHERE d.id = ?", (delivery,)
        ).fetchone()
        return "*" in self.drop or (row is not None and row[0] in self.drop)


def _api_fault(value: Any) -> ApiFault:
    if not isinstance(value, dict) or set(value) - {"status", "next", "path", "after"}:
        raise ValueError("api_error takes status, next, path and after")
    status, count = value.get("status"), value.get("next", 1)
    if status not in (429, 500, 502, 503) or not isinstance(count, int) or count < 1:
        raise ValueError("api_error needs a status of 429, 500, 502 or 503 and a positive next")
    return ApiFault(status, count, str(value.get("path", "/v1/")), bool(value.get("after", False)))
