"""One batch under way: what was read under the locks, and what there is to write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from services.kit.errors import TollwayError
from services.quota.domain.account import Account
from services.quota.domain.allowance import Adjusted
from services.quota.domain.announcement import Announcement, ended_period, forget_end, passed, reached_cap
from services.quota.domain.cap import own_cap
from services.quota.domain.decision import Decision, LimitState, charge, count, counted_units
from services.quota.domain.lease import Lease
from services.quota.domain.selling import is_left, turn
from services.quota.errors import GrantReversed, KeyReused


class Unknown:
    """The account is not known here; billing has to be asked."""


@dataclass
class Reversal:
    """What was taken back. `replayed`: it had been before; nothing changed now."""

    meter: str
    amount: int
    replayed: bool = False


# By command: Use, Acquire and Settle a Decision; Renew and Release the Lease; Reverse a Reversal; SetCap the cap's
# LimitState; AdjustAllowance an Adjusted. Any of them may fail, or have no account.
Outcome = Decision | Lease | Reversal | LimitState | Adjusted | TollwayError | Unknown


@dataclass
class Grant:
    """A line of the ledger: what was counted and what the caller is told.

    `at` is when it was decided; None where nobody will take it back. `amount` of an allowance is what changed, below
    zero when it became less; its meter is `\\x1f` and the allowance's name.
    """

    account_id: str
    key: str
    meter: str
    amount: int
    answer: Decision
    key_id: str = ""
    at: datetime | None = None
    reversed: bool = False


@dataclass
class Opened:
    """What was read under the locks: accounts by id, and the grants of the keys that came back."""

    at: datetime  # business time, UTC
    accounts: dict[str, Account]
    granted: dict[tuple[str, str], Grant]
    switches: frozenset[str] = frozenset()  # kill switches that are thrown; see `decide`


@dataclass
class Settled:
    """One outcome per command, in order; and what there is to write, each thing in one place only.

    A lease that was opened in this batch is not in `renewed`; one that ended in it is in none of the two, and in
    `ended` only if it was there before. A grant of this batch that was taken back in it says so itself and is not in
    `reversed`. `changed` has the accounts whose counters, rates, terms or leases changed, or that have a new line in
    the ledger.
    """

    outcomes: list[Outcome]
    grants: list[Grant]
    changed: dict[str, Account]
    opened: list[Lease] = field(default_factory=list)
    renewed: list[Lease] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)
    reversed: list[tuple[str, str]] = field(default_factory=list)
    announcements: list[Announcement] = field(default_factory=list)


def replay(before: Grant, *, same: bool) -> Decision:
    """The first answer again. `same`: whether the key came back with what it was first used for.

    Raises KeyReused, GrantReversed.
    """
    if not same:
        raise KeyReused
    if before.reversed:
        raise GrantReversed
    first = before.answer
    return Decision(
        first.tier,
        first.version,
        first.limits,
        replayed=True,
        overage_units=first.overage_units,
        lease=first.lease,
    )


class Work:
    """`settle`'s own state; the handlers of commands report to it what they did."""

    def __init__(self, opened: Opened, new_key: Callable[[], str]) -> None:
        self.at = opened.at
        self.granted = opened.granted
        self.switches = opened.switches
        self.new_key = new_key
        self.grants: list[Grant] = []
        self.changed: dict[str, Account] = {}
        self.reversed: list[tuple[str, str]] = []
        self.announcements: list[Announcement] = []
        self._opened: dict[tuple[str, str], Lease] = {}
        self._renewed: dict[tuple[str, str], Lease] = {}
        self._ended: list[tuple[str, str]] = []

    def count(self, account: Account, meter: str, amount: int, key_id: str | None) -> None:
        """Counts units and announces what they come to. `key_id` None: in no rate."""
        rules = account.plan.rules.get(meter)
        self.turn(account, meter)
        if key_id is None:
            count(account, meter, amount)
        else:
            charge(account, meter, amount, key_id)
        if rules is not None and (rules.warned or account.terms):
            self.announcements += passed(account, rules, amount)
        self.changed[account.id] = account

    def refuse(self, account: Account, meter: str, by: str) -> None:
        """A plan that changes may bring an account's own cap below what is used: its first refusal announces that."""
        if not account.terms:
            return
        for limit in account.plan.rules[meter].counted:
            if limit.name == by and limit.is_cap and (own := own_cap(account, limit)) is not None:
                reached = reached_cap(account, limit, own, counted_units(account, limit))
                if reached is not None:
                    self.announcements.append(reached)
                    self.changed[account.id] = account

    def turn(self, account: Account, meter: str) -> None:
        """Announces the end of the billing period that was counted last, and counts in the one that runs."""
        if is_left(account, meter):
            if (ended := ended_period(account, meter)) is not None:
                self.announcements.append(ended)
            turn(account, meter)
        if account.terms:
            forget_end(account, meter)

    def grant(self, line: Grant, *, remembers: bool) -> None:
        self.grants.append(line)
        if remembers:
            self.granted[line.account_id, line.key] = line

    def reverse(self, line: Grant) -> None:
        """Marks the line; one of this batch is still to be written and carries the mark itself."""
        line.reversed = True
        if not any(line is each for each in self.grants):
            self.reversed.append((line.account_id, line.key))

    def open(self, account: Account, lease: Lease) -> None:
        account.hold(lease)
        self._opened[account.id, lease.id] = lease
        self.changed[account.id] = account

    def renew(self, account: Account, lease: Lease) -> None:
        account.hold(lease)
        name = (account.id, lease.id)
        (self._opened if name in self._opened else self._renewed)[name] = lease
        self.changed[account.id] = account

    def end(self, account: Account, lease_id: str) -> None:
        account.end(lease_id)
        name = (account.id, lease_id)
        self._renewed.pop(name, None)
        if self._opened.pop(name, None) is None:
            self._ended.append(name)
        self.changed[account.id] = account

    def settled(self, outcomes: list[Outcome]) -> Settled:
        """Accounts that are written anyway lose the leases that expired."""
        for account in self.changed.values():
            if account.leases:
                for lease in [each for each in account.leases.values() if each.expire_time <= self.at]:
                    self.end(account, lease.id)
        return Settled(
            outcomes,
            self.grants,
            self.changed,
            list(self._opened.values()),
            list(self._renewed.values()),
            self._ended,
            self.reversed,
            self.announcements,
        )
