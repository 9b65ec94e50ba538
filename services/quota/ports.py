"""What the use cases need from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from services.quota.domain import Command, Counters, Lease, Outcome, Plan, Rates, Terms
from services.quota.events import Snapshot


class Decider(Protocol):
    def decide(self, commands: Sequence[Command], time_left_s: float | None, /) -> Awaitable[list[Outcome]]:
        """One outcome per command, in order; what is allowed or done is durable when this returns.

        `time_left_s` is the caller's deadline from now. Raises QueueFull when it takes no more; a command that was not
        decided has StoreUnavailable or Expired as its outcome.
        """
        ...


class Directory(Protocol):
    async def learn(self, account_ids: Iterable[str]) -> set[str]:
        """Reads accounts that are new here from billing; returns those that exist. Raises BillingUnavailable."""
        ...


@dataclass(frozen=True)
class StoredAccount:
    """An account as it lies in the table, and the business time at which it was read."""

    version: int
    plan: Plan
    anchor: datetime | None
    interval: str
    counters: Counters
    at: datetime
    rates: Rates
    leases: dict[str, Lease] = field(default_factory=dict)
    terms: Terms = field(default_factory=dict)


@dataclass(frozen=True)
class KeyOwner:
    """Whose API key it is; `kind` is one of the catalog's."""

    account_id: str
    key_id: str
    kind: str
    end_time: datetime | None = None  # from then on it is refused; business time


class Keys(Protocol):
    async def owner(self, api_key: str) -> KeyOwner:
        """Raises ApiKeyRefused; BillingUnavailable or StoreUnavailable when that cannot be found out now."""
        ...


class Authority(Protocol):
    """Billing, which issued every key."""

    async def authenticate(self, api_key: str) -> KeyOwner:
        """Raises ApiKeyRefused, or another TollwayError when billing cannot answer."""
        ...


class KeyTable(Protocol):
    async def find(self, hashes: Sequence[bytes]) -> Mapping[bytes, KeyOwner]:
        """Those that are known here."""
        ...

    async def add(self, owners: Mapping[bytes, KeyOwner]) -> None:
        """Keys that are there keep their owner; of two ends the earlier one counts."""
        ...


class Leases(Protocol):
    async def list(
        self, account_id: str, meter: str, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Lease]:
        """At most `limit` live ones, ordered by the time they were acquired and their id, after that pair.

        `meter` empty: of every meter.
        """
        ...


class Accounts(Protocol):
    async def get(self, account_id: str, key_id: str = "", /) -> StoredAccount | None:
        """With its leases, its terms and its rates: those of the account, and the key's own."""
        ...

    async def apply(self, snapshots: Iterable[Snapshot]) -> int:
        """Stores what is newer than what is there; returns how many were. Counters stay."""
        ...


class Reading(Protocol):
    """A unit of work, as far as those need it who only read."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def leases(self) -> Leases: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Entitlements(Protocol):
    """Billing, as quota asks it. Raises a TollwayError when billing cannot answer."""

    async def get(self, account_ids: Sequence[str]) -> list[Snapshot]:
        """At most 1000 ids; unknown ones are left out."""
        ...

    async def changed_since(self, token: str) -> tuple[list[Snapshot], str, bool]:
        """Accounts changed since `token` (empty: all), the next token, and whether more is there now."""
        ...
