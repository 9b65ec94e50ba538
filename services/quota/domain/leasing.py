"""What is done with leases: acquired, renewed, settled with what was really used, released."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from services.quota.domain.account import Account
from services.quota.domain.command import Acquire, Release, Renew, Settle
from services.quota.domain.decision import Decision, decide, limit_states
from services.quota.domain.lease import DURATION, Lease
from services.quota.domain.work import Grant, Work, replay
from services.quota.errors import LeaseNotFound, SettledTooMuch

# The ledger's line of what a settled lease has used. No caller's key begins with this character.
SETTLED = "\x1e"


def acquire(command: Acquire, account: Account, work: Work) -> Decision:
    """Decides, counts and holds. Raises UnknownMeter, CounterFull, KeyReused, GrantReversed."""
    meter, amount, reserve = command.meter, command.amount, command.reserve
    if command.key and (before := work.granted.get((account.id, command.key))) is not None:
        first = before.answer.lease
        as_before = (before.meter, before.amount) == (meter, amount)
        held = first is not None and (first.reserved, first.subject) == (reserve, command.subject)
        return replay(before, same=as_before and held)
    decision = decide(account, meter, amount, switches=work.switches, key_id=command.key_id, reserve=reserve, slot=True)
    if decision.refused is not None:
        work.refuse(account, meter, decision.refused.limit)
        return decision
    lease = decision.lease = Lease(
        command.lease_id,
        account.id,
        meter,
        reserve,
        work.at,
        work.at + _duration(account, meter, command.duration),
        command.key_id,
        command.subject,
    )
    if amount:
        work.count(account, meter, amount, command.key_id)
    work.open(account, lease)
    key = command.key or work.new_key()
    work.grant(Grant(account.id, key, meter, amount, decision, command.key_id, work.at), remembers=bool(command.key))
    return decision


def renew(command: Renew, account: Account, work: Work) -> Lease:
    """The lease as it is now. Raises LeaseNotFound."""
    lease = _live(account, command.lease_id)
    until = work.at + _duration(account, lease.meter, command.duration)
    if until <= lease.expire_time:
        return lease
    longer = replace(lease, expire_time=until)
    work.renew(account, longer)
    return longer


def settle_lease(command: Settle, account: Account, work: Work) -> Decision:
    """The meter's limits afterwards. No limit stands in the way, for the units were held.

    Raises LeaseNotFound, SettledTooMuch.
    """
    lease = _live(account, command.lease_id)
    if command.amount > lease.reserved:
        raise SettledTooMuch(lease.reserved)
    work.end(account, lease.id)
    if command.amount:
        work.count(account, lease.meter, command.amount, None)  # rates count attempts: that was Acquire
    decision = Decision(account.plan.tier, account.version, limit_states(account, lease.meter, lease.key_id))
    if command.amount:
        line = Grant(account.id, SETTLED + lease.id, lease.meter, command.amount, decision, lease.key_id, work.at)
        work.grant(line, remembers=False)
    return decision


def release(command: Release, account: Account, work: Work) -> Lease:
    """The lease as it was. Raises LeaseNotFound."""
    lease = _live(account, command.lease_id)
    work.end(account, lease.id)
    return lease


def _live(account: Account, lease_id: str) -> Lease:
    lease = account.live(lease_id)
    if lease is None:
        raise LeaseNotFound
    return lease


def _duration(account: Account, meter: str, asked: timedelta | None) -> timedelta:
    if asked is not None:
        return asked
    rules = account.plan.rules.get(meter)
    windows = (limit.window for limit in rules.slots if limit.window) if rules is not None else ()
    return next(iter(windows), DURATION)
