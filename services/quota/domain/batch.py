"""Many uses in arrival order against state that is locked: what each is told, and what there is to write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from services.kit.errors import TollwayError
from services.quota.domain.account import Account
from services.quota.domain.decision import Decision, charge, decide
from services.quota.errors import KeyReused


@dataclass
class Use:
    """A request to use `amount` units. `key` is the caller's idempotency key, or empty."""

    account_id: str
    meter: str
    amount: int
    key: str = ""
    dry_run: bool = False
    key_id: str = ""  # the API key that it came with, for limits per key


class Unknown:
    """The account is not known here; billing has to be asked."""


Outcome = Decision | TollwayError | Unknown
_UNKNOWN = Unknown()


@dataclass
class Grant:
    """A line of the ledger: what was counted and what the caller is told."""

    account_id: str
    key: str
    meter: str
    amount: int
    answer: Decision
    key_id: str = ""


@dataclass
class Opened:
    """What was read under the locks: accounts by id, and the grants of the keys that came back."""

    at: datetime  # business time, UTC
    accounts: dict[str, Account]
    granted: dict[tuple[str, str], Grant]
    switches: frozenset[str] = frozenset()  # kill switches that are thrown; see `decide`


@dataclass
class Settled:
    """One outcome per use, in order; the new ledger lines; the accounts whose counters changed."""

    outcomes: list[Outcome]
    grants: list[Grant]
    changed: dict[str, Account]


def settle(uses: Iterable[Use], opened: Opened, new_key: Callable[[], str]) -> Settled:
    """Decides in order; each use sees the ones before it. `new_key` names grants of callers without a key."""
    outcomes: list[Outcome] = []
    grants: list[Grant] = []
    changed: dict[str, Account] = {}
    accounts, granted = opened.accounts, opened.granted
    for use in uses:
        account = accounts.get(use.account_id)
        if account is None:
            outcomes.append(_UNKNOWN)
            continue
        remembers = bool(use.key) and not use.dry_run
        if remembers and (before := granted.get((use.account_id, use.key))) is not None:
            outcomes.append(_replay(use, before))
            continue
        try:
            decision = decide(account, use.meter, use.amount, switches=opened.switches, key_id=use.key_id)
        except TollwayError as error:
            outcomes.append(error)
            continue
        outcomes.append(decision)
        if decision.refused is None and not use.dry_run:
            charge(account, use.meter, use.amount, use.key_id)
            changed[use.account_id] = account
            grant = Grant(use.account_id, use.key or new_key(), use.meter, use.amount, decision, use.key_id)
            grants.append(grant)
            if remembers:
                granted[use.account_id, use.key] = grant
    return Settled(outcomes, grants, changed)


def _replay(use: Use, before: Grant) -> Outcome:
    if (use.meter, use.amount) != (before.meter, before.amount):
        return KeyReused()
    first = before.answer
    return Decision(first.tier, first.version, first.limits, replayed=True)
