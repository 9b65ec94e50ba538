"""What tollway holds beside what Stripe has, field by field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime

from services.billing.domain.subscription import Invoice, Subscription


@dataclass(frozen=True)
class Drift:
    """`field` is `*` for an object that is not held here at all."""

    account_id: str
    object_id: str
    field: str
    ours: str
    stripes: str


def drifts(
    account_id: str, ours: Iterable[Subscription | Invoice], stripes: Iterable[Subscription | Invoice]
) -> list[Drift]:
    """One for each field that differs. What Stripe does not list (any more) is left alone: ids are kept for ever."""
    held = {each.id: each for each in ours}
    found = []
    for theirs in stripes:
        mine = held.get(theirs.id)
        if mine is None:
            found.append(Drift(account_id, theirs.id, "*", "", theirs.status))
            continue
        for field in fields(theirs):
            before, now = getattr(mine, field.name), getattr(theirs, field.name)
            if before != now:
                found.append(Drift(account_id, theirs.id, field.name, _text(before), _text(now)))
    return found


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else "" if value is None else str(value)
