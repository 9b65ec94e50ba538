"""Knobs that make the sandbox misbehave as networks and Stripe sometimes do. They are forgotten at restart."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from random import SystemRandom
from typing import Any

from .store import Store

_random = SystemRandom()


@dataclass
class ApiFault:
    """What happens to the next calls that fit: an error or no answer, before the work or (`after`) with it done."""

    # 429, 500, 502, 503; "hang": the call is never answered; "cut": its connection ends without an answer.
    status: int | str
    next: int = 1
    # How many fitting calls go through first.
    skip: int = 0
    # A beginning of the path, or a pattern with `*` for the whole of it.
    path: str = "/v1/"
    method: str | None = None
    after: bool = False
    # What `Stripe-Should-Retry` says, if anything.
    should_retry: bool | None = None

    def fits(self, method: str, path: str) -> bool:
        if self.method not in (None, method):
            return False
        return fnmatchcase(path, self.path) if "*" in self.path else path.startswith(self.path)


@dataclass
class Faults:
    # Milliseconds that each API call waits before it is looked at.
    latency_ms: int = 0
    # Milliseconds between an event and its first delivery.
    webhook_delay_ms: int = 0
    # Each delivery waits up to so many milliseconds more, by chance: changes overtake one another.
    webhook_jitter_ms: int = 0
    # Each delivery is made twice.
    duplicate: bool = False
    # Deliveries of one change go out in a shuffled order, some tens of milliseconds apart.
    reorder: bool = False
    # Event types whose deliveries are lost; `*` stands for anything.
    drop: list[str] = field(default_factory=list)
    # How many coming deliveries are lost, whatever their type.
    drop_next: int = 0
    api_error: ApiFault | None = None
    # More of them at once; the first that fits a call strikes.
    api_errors: list[ApiFault] = field(default_factory=list)
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
            elif name == "api_errors":
                if not isinstance(value, list):
                    raise ValueError("api_errors must be a list")
                fresh[name] = [_api_fault(one) for one in value]
            elif type(value) is not type(known[name]):
                raise ValueError(f"{name} must be a {type(known[name]).__name__}")
            else:
                fresh[name] = value
        for name, value in fresh.items():
            setattr(self, name, value)

    def take_api_error(self, method: str, path: str) -> ApiFault | None:
        """The fault that strikes this call, counted."""
        for fault in filter(None, (self.api_error, *self.api_errors)):
            if not fault.fits(method, path):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.next -= 1
            if fault.next == 0:
                self._forget(fault)
            return fault
        return None

    def _forget(self, fault: ApiFault) -> None:
        if fault is self.api_error:
            self.api_error = None
        self.api_errors = [one for one in self.api_errors if one is not fault]

    def take_hang(self) -> bool:
        if self.hang_next < 1:
            return False
        self.hang_next -= 1
        return True

    @property
    def touches_webhooks(self) -> bool:
        delayed = self.webhook_delay_ms or self.webhook_jitter_ms
        return bool(delayed or self.duplicate or self.reorder or self.drop or self.drop_next)

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
            late = self.webhook_delay_ms + _random.uniform(0, self.webhook_jitter_ms)
            at = now + late / 1000 + place * gap
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
        return row is not None and any(fnmatchcase(row[0], pattern) for pattern in self.drop)


def _api_fault(value: Any) -> ApiFault:
    known = {f.name for f in fields(ApiFault)}
    if not isinstance(value, dict) or set(value) - known or "status" not in value:
        raise ValueError(f"an api error takes a status and any of {', '.join(sorted(known - {'status'}))}")
    fault = ApiFault(**value)
    if fault.status not in (429, 500, 502, 503, "hang", "cut"):
        raise ValueError("status is 429, 500, 502, 503, hang or cut")
    if type(fault.next) is not int or type(fault.skip) is not int or fault.next < 1 or fault.skip < 0:
        raise ValueError("next is a positive number of calls, skip a number of calls")
    if type(fault.after) is not bool or not isinstance(fault.should_retry, bool | None):
        raise ValueError("after and should_retry are true or false")
    if not isinstance(fault.path, str) or fault.method not in (None, "GET", "POST", "DELETE"):
        raise ValueError("path is a text, method GET, POST or DELETE")
    return fault
