"""What a use case works with: the state, the time of the object's clock, and the events it announces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from . import events
from .errors import missing
from .store import Json, Store


@dataclass
class Context:
    store: Store
    # Unix seconds of the default clock (wall time plus the offset).
    default_now: Callable[[], int]
    base_url: str
    request_id: str | None = None
    idempotency_key: str | None = None
    # While a clock steps through due work, its time is that of the work, not of the step's end.
    as_of: dict[str, int] = field(default_factory=dict)
    # Deliveries created by this unit of work, handed to the deliverer after the commit.
    deliveries: list[int] = field(default_factory=list)
    # Test clocks that were told to move, set going after the commit.
    clocks: list[str] = field(default_factory=list)

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """What is done inside is undone at its end: objects, events, time. For previews; inside a transaction."""
        deliveries, times = list(self.deliveries), dict(self.as_of)
        self.store.db.execute("SAVEPOINT rehearsal")
        try:
            yield
        finally:
            self.store.db.execute("ROLLBACK TO rehearsal")
            self.store.db.execute("RELEASE rehearsal")
            self.deliveries, self.as_of = deliveries, times

    def now(self, clock: str | None = None) -> int:
        """Unix seconds on a test clock, or on the default clock."""
        fixed = self.as_of.get(clock or "")
        if fixed is not None:
            return fixed
        if clock is None:
            return self.default_now()
        return int(self.need(clock, "test_helpers.test_clock")["frozen_time"])

    def now_of(self, customer: Json | str | None) -> int:
        if isinstance(customer, str):
            customer = self.need(customer, "customer")
        return self.now(customer.get("test_clock") if customer else None)

    def need(self, object_id: str, kind: str, *, param: str | None = None) -> Json:
        """The object; raises resource_missing, 404 for a path's id and 400 for a parameter's."""
        found = self.store.get(object_id, kind)
        if found is None:
            label = "PaymentMethod" if kind == "payment_method" else kind
            if param is None:
                raise missing(label, object_id)
            raise missing(label, object_id, param, 400)
        return found

    def create(self, obj: Json, event: str | None = None) -> Json:
        self.store.put(obj)
        if event is not None:
            self.emit(event, obj)
        return obj

    def save(self, obj: Json, event: str | None = None, before: Json | None = None) -> Json:
        """Stores the object; with `before`, the event carries previous_attributes, and no change means no event."""
        self.store.put(obj)
        if event is not None:
            previous = None
            if before is not None:
                previous = events.difference(events.snapshot(before), events.snapshot(obj))
            if previous is None or previous:
                self.emit(event, obj, previous)
        return obj

    def emit(self, event_type: str, obj: Json, previous: dict[str, Any] | None = None) -> None:
        clock = obj.get("test_clock") or obj.get("_clock")
        if clock is None and isinstance(obj.get("customer"), str):
            customer = self.store.get(obj["customer"], "customer")
            clock = customer.get("test_clock") if customer else None
        self.deliveries += events.announce(
            self.store,
            event_type,
            obj,
            created=self.now(clock),
            previous=previous,
            request_id=self.request_id,
            idempotency_key=self.idempotency_key,
        )
