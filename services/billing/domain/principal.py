"""Who acts, and what a person may do in an account."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ActorKind(StrEnum):
    KEY = "key"
    SESSION = "session"
    OUTSIDE = "outside"
    OPERATOR = "operator"
    SYSTEM = "system"


@dataclass(frozen=True)
class Actor:
    """What a change is recorded under. `id`: a key's, a user's, an outside token's subject, or who else acted."""

    kind: ActorKind
    id: str


STRIPE = Actor(ActorKind.SYSTEM, "stripe")
CLOCK = Actor(ActorKind.SYSTEM, "clock")
CATALOG = Actor(ActorKind.SYSTEM, "catalog")


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
