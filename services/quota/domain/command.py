"""What callers ask of an account. Each is decided in its turn, under the account's lock.

Plain dataclasses: many are made a second, and frozen or slotted ones take several times as long. `key` is the caller's
idempotency key, or empty. The amounts are checked at the edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Literal


@dataclass
class Use:
    """A request to use `amount` units."""

    needs_ledger: ClassVar[bool] = False

    account_id: str
    meter: str
    amount: int
    key: str = ""
    dry_run: bool = False
    key_id: str = ""  # the API key that it came with, for limits per key


@dataclass
class Acquire:
    """A request for a lease: counts `amount` units for good, and holds a slot and `reserve` units until it ends.

    `lease_id` is the id that the lease will have, made by whoever asks, so that deciding twice names it once.
    `duration` None: the catalog's.
    """

    needs_ledger: ClassVar[bool] = False
    dry_run: ClassVar[bool] = False

    account_id: str
    meter: str
    amount: int
    reserve: int
    lease_id: str
    duration: timedelta | None = None
    key: str = ""
    key_id: str = ""
    subject: str = ""


@dataclass
class _OfLease:
    needs_ledger: ClassVar[bool] = False
    dry_run: ClassVar[bool] = False
    # What limits them was looked at when the lease was acquired.
    meter: ClassVar[str] = ""
    key: ClassVar[str] = ""
    key_id: ClassVar[str] = ""

    account_id: str
    lease_id: str


@dataclass
class Renew(_OfLease):
    """Lets a live lease last `duration` from now, never shorter than it would. None: the catalog's."""

    duration: timedelta | None = None


@dataclass
class Settle(_OfLease):
    """Ends a live lease and counts `amount` units of its reserve."""

    amount: int = 0


@dataclass
class Release(_OfLease):
    """Ends a live lease. Its reserve is free again."""


@dataclass
class Reverse:
    """Takes back what the key was granted."""

    needs_ledger: ClassVar[bool] = True
    dry_run: ClassVar[bool] = False
    meter: ClassVar[str] = ""
    key_id: ClassVar[str] = ""

    account_id: str
    key: str


@dataclass
class SetCap:
    """The account's own cap on a meter: `limit` units, or `overage_amount` of money; neither removes it.

    `overage_amount` is in minor units of the meter's currency, a decimal string, for units beyond the included ones.
    """

    needs_ledger: ClassVar[bool] = False
    dry_run: ClassVar[bool] = False
    key: ClassVar[str] = ""
    key_id: ClassVar[str] = ""

    account_id: str
    meter: str
    limit: int | None = None
    overage_amount: str = ""
    auto_stop: bool = True


@dataclass
class AdjustAllowance:
    """Changes how many of a thing are held. `key` matters to `add` and `remove`: setting twice is setting once."""

    needs_ledger: ClassVar[bool] = False
    dry_run: ClassVar[bool] = False
    meter: ClassVar[str] = ""
    key_id: ClassVar[str] = ""

    account_id: str
    allowance: str
    change: Literal["set", "add", "remove"]
    amount: int
    key: str = ""


Command = Use | Acquire | Renew | Settle | Release | Reverse | SetCap | AdjustAllowance
