"""Many commands in arrival order against state that is locked: what each is told, and what there is to write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from services.kit.errors import TollwayError
from services.quota.domain.account import Account
from services.quota.domain.command import (
    Acquire,
    AdjustAllowance,
    Command,
    Release,
    Renew,
    Reverse,
    SetCap,
    Settle,
    Use,
)
from services.quota.domain.decision import Decision, decide
from services.quota.domain.guardrails import adjust_allowance, set_cap
from services.quota.domain.leasing import acquire, release, renew, settle_lease
from services.quota.domain.reversal import reverse
from services.quota.domain.work import Grant, Opened, Outcome, Settled, Unknown, Work, replay

_UNKNOWN = Unknown()


def use(command: Use, account: Account, work: Work) -> Decision:
    """Decides and counts. Raises UnknownMeter, CounterFull, KeyReused, GrantReversed."""
    remembers = bool(command.key) and not command.dry_run
    if remembers and (before := work.granted.get((command.account_id, command.key))) is not None:
        as_before = (before.meter, before.amount) == (command.meter, command.amount)
        return replay(before, same=as_before and before.answer.lease is None)
    decision = decide(account, command.meter, command.amount, switches=work.switches, key_id=command.key_id)
    if decision.refused is not None:
        if not command.dry_run:
            work.refuse(account, command.meter, decision.refused.limit)
    elif not command.dry_run:
        work.count(account, command.meter, command.amount, command.key_id)
        line = Grant(
            command.account_id,
            command.key or work.new_key(),
            command.meter,
            command.amount,
            decision,
            command.key_id,
            work.at,
        )
        work.grant(line, remembers=remembers)
    return decision


_HANDLERS: dict[type, Callable[[Any, Account, Work], Outcome]] = {
    Use: use,
    Acquire: acquire,
    Renew: renew,
    Settle: settle_lease,
    Release: release,
    Reverse: reverse,
    SetCap: set_cap,
    AdjustAllowance: adjust_allowance,
}


def settle(commands: Iterable[Command], opened: Opened, new_key: Callable[[], str]) -> Settled:
    """Decides in order; each command sees the ones before it, and what fails changes nothing.

    `new_key` names grants of callers without a key.
    """
    work = Work(opened, new_key)
    accounts = opened.accounts
    outcomes: list[Outcome] = []
    for command in commands:
        account = accounts.get(command.account_id)
        if account is None:
            outcomes.append(_UNKNOWN)
            continue
        try:
            outcomes.append(_HANDLERS[type(command)](command, account, work))
        except TollwayError as error:
            outcomes.append(error)
    return work.settled(outcomes)
