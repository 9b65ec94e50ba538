"""What accounts set on themselves: caps, and how many of a thing they hold."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from services.quota.domain.account import Account
from services.quota.domain.allowance import (
    LEDGER_MARK,
    Adjusted,
    AllowanceState,
    adjusted,
    allowance_state,
    keep_held,
)
from services.quota.domain.announcement import reached_cap
from services.quota.domain.cap import own_cap
from services.quota.domain.command import AdjustAllowance, SetCap
from services.quota.domain.decision import Decision, LimitState, cap_state, counted_units
from services.quota.domain.work import Grant, Work, replay
from services.quota.errors import CapNotOffered, KeyReused, NotSoldByUnit, UnknownMeter


def set_cap(command: SetCap, account: Account, work: Work) -> LimitState:
    """The cap as it stands now. Raises UnknownMeter, CapNotOffered, NotSoldByUnit."""
    rules = account.plan.rules.get(command.meter)
    if rules is None:
        raise UnknownMeter(command.meter)
    limit = next((each for each in rules.counted if each.is_cap), None)
    if limit is None:
        raise CapNotOffered(command.meter)
    if command.overage_amount and not rules.sold:
        raise NotSoldByUnit(command.meter)
    wanted, own = _setting(command), own_cap(account, limit)
    if wanted == ({name: own[name] for name in own if name != "reached"} if own is not None else None):
        return cap_state(account, limit)
    caps = account.terms.setdefault("caps", {})
    if wanted is None:
        del caps[limit.name]
    else:
        caps[limit.name] = wanted
        if (reached := reached_cap(account, limit, wanted, counted_units(account, limit))) is not None:
            work.announcements.append(reached)
    work.changed[account.id] = account
    return cap_state(account, limit)


def _setting(command: SetCap) -> dict[str, Any] | None:
    if command.overage_amount:
        # One way to write an amount, so that asking for what is already so can be seen.
        amount = format(Decimal(command.overage_amount).normalize(), "f")
        return {"amount": amount, "meter": command.meter, "auto_stop": command.auto_stop}
    return None if command.limit is None else {"limit": command.limit, "auto_stop": command.auto_stop}


def adjust_allowance(command: AdjustAllowance, account: Account, work: Work) -> Adjusted:
    """How it stands afterwards, or why not. Raises AllowanceFull, KeyReused."""
    name = command.allowance
    remembers = bool(command.key) and command.change != "set"
    if remembers and (before := work.granted.get((account.id, command.key))) is not None:
        return _replay(command, before)
    result = adjusted(account, command)
    if result.refused is not None:
        return result
    held = result.state.held
    difference = held - allowance_state(account, name).held
    if difference:
        keep_held(account, name, held)
    if difference or remembers:
        work.changed[account.id] = account
    if remembers:
        # How it stands, and what was asked for, so that a repeat of the key can be told from another use of it.
        kept = [
            LimitState(name, held, result.state.limit, None),
            LimitState(command.change, command.amount, None, None),
        ]
        answer = Decision(account.plan.tier, account.version, kept)
        line = Grant(account.id, command.key, LEDGER_MARK + name, difference, answer, at=work.at)
        work.grant(line, remembers=True)
    return result


def _replay(command: AdjustAllowance, before: Grant) -> Adjusted:
    if before.meter != LEDGER_MARK + command.allowance:
        raise KeyReused
    state, asked = before.answer.limits
    same = (asked.name, asked.used) == (command.change, command.amount)
    replay(before, same=same)
    return Adjusted(AllowanceState(state.name, state.used, state.limit), replayed=True)
