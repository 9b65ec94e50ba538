"""Counts of things held now (models, seats, gigabytes), kept in the account's terms: `{"held": {name: number}}`."""

from __future__ import annotations

from dataclasses import dataclass

from services.quota.domain.account import Account
from services.quota.domain.command import AdjustAllowance
from services.quota.domain.decision import COUNTER_MAX, Refused, refusal_of
from services.quota.domain.plan import Refusal
from services.quota.errors import AllowanceFull

# Begins the meter of the ledger's lines of allowances: what they count is in no counter.
LEDGER_MARK = "\x1f"


@dataclass
class AllowanceState:
    """How many are held; `limit` None: unlimited."""

    name: str
    held: int
    limit: int | None

    @property
    def remaining(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.held)


@dataclass
class Adjusted:
    """The answer to a change: how it stands now, changed exactly when `refused` is None."""

    state: AllowanceState
    refused: Refused | None = None
    replayed: bool = False


def allowance_state(account: Account, name: str) -> AllowanceState:
    return AllowanceState(name, int(account.terms.get("held", {}).get(name, 0)), account.plan.allowances.get(name))


def allowance_states(account: Account) -> list[AllowanceState]:
    """Those that the plan limits and those of which something is held, by name."""
    names = account.plan.allowances.keys() | account.terms.get("held", {}).keys()
    return [allowance_state(account, name) for name in sorted(names)]


def adjusted(account: Account, command: AdjustAllowance) -> Adjusted:
    """How it would stand afterwards. Changes nothing. Raises AllowanceFull.

    Fewer is never refused, though it may still be more than a lower plan allows.
    """
    now = allowance_state(account, command.allowance)
    amount = command.amount
    held = {"set": amount, "add": now.held + amount, "remove": max(0, now.held - amount)}[command.change]
    if held > now.held and now.limit is not None and held > now.limit:
        detail = f"The plan allows {now.limit} of {command.allowance}."
        refusal = Refusal(f"{command.allowance}_limit_reached", 402, detail)
        return Adjusted(now, refusal_of(account, command.allowance, refusal))
    if held > COUNTER_MAX:
        raise AllowanceFull(command.change)
    return Adjusted(AllowanceState(command.allowance, held, now.limit))


def keep_held(account: Account, name: str, held: int) -> None:
    kept = account.terms.setdefault("held", {})
    if held:
        kept[name] = held
    else:
        kept.pop(name, None)
