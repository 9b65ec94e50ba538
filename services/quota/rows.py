"""Accounts between the store and the domain, and the lists that `quota_save` takes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from services.kit.outbox import Envelope
from services.quota.domain import Account, Command, Opened, Plan, Settle, Settled, rate
from services.quota.events import to_event
from services.quota.known import Known

MOST_RATES = 16  # logs of one account that are kept known: an account may have any number of keys
# Between the elements of a list, and for an empty one among them: no element holds control characters like these.
APART, NONE = "\x1d", "\x1f"


def to_account(entry: Known, at: datetime) -> Account:
    return Account(
        entry.id,
        entry.version,
        entry.plan,
        entry.anchor,
        entry.interval,
        orjson.loads(entry.counters),
        at,
        {name: rate.unpack(log) for name, log in entry.rates.items() if log} if entry.rates else {},
        {lease.id: lease for lease in entry.leases} if entry.leases else {},
        orjson.loads(entry.terms) if entry.terms != "{}" else {},
    )


def to_known(account: Account, before: Known, rates: Mapping[tuple[str, str], bytes]) -> Known:
    """The account as it will be once it is saved."""
    kept = before.rates if len(before.rates) <= MOST_RATES else {}
    return Known(
        before.id,
        before.rev + 1,
        before.version,
        before.plan,
        before.anchor,
        before.interval,
        orjson.dumps(account.counters).decode(),
        orjson.dumps(account.terms).decode() if account.terms else "{}",
        tuple(account.leases.values()),
        {**kept, **rates} if rates else before.rates,
    )


def charged(settled: Settled, opened: Opened) -> dict[str, dict[tuple[str, str], bytes]]:
    """The logs to which something was added, packed, by account."""
    charged: dict[str, dict[tuple[str, str], bytes]] = {}
    done = set()
    for grant in settled.grants:
        account = opened.accounts[grant.account_id]
        # Once for all grants of a batch: a log may have a thousand numbers.
        if account.plan.rates_of and (which := (grant.account_id, grant.meter, grant.key_id)) not in done:
            done.add(which)
            for name in rates_of(account.plan, grant.meter, grant.key_id):
                if (log := account.rates.get(name)) is not None:
                    charged.setdefault(account.id, {})[name] = rate.pack(log)
    return charged


def rates_told(command: Command, entry: Known) -> list[tuple[str, str]]:
    """The logs that the command's decision looks at or tells."""
    if isinstance(command, Settle):  # its lease says which
        lease = next((each for each in entry.leases if each.id == command.lease_id), None)
        return rates_of(entry.plan, lease.meter, lease.key_id) if lease is not None else []
    return rates_of(entry.plan, command.meter, command.key_id)


def rates_of(plan: Plan, meter: str, key_id: str) -> list[tuple[str, str]]:
    return [(limit.name, key_id if limit.per_key else "") for limit in plan.rates_of.get(meter, ())]


def rest(settled: Settled, rates: Mapping[str, Mapping[tuple[str, str], bytes]]) -> list[Any]:
    """What few batches have to write; empty when this one has none of it."""
    leases = settled.opened + settled.renewed
    taken_back = settled.reversed + [(grant.account_id, grant.key) for grant in settled.grants if grant.reversed]
    if not (rates or leases or settled.ended or taken_back or settled.announcements):
        return []
    buckets = [(each, *name, log) for each, logs in rates.items() for name, log in logs.items()]
    events = [Envelope.of(to_event(each), each.account_id) for each in settled.announcements]
    return [
        joined([bucket[0] for bucket in buckets]),
        joined([bucket[1] for bucket in buckets]),
        joined([bucket[2] or NONE for bucket in buckets]),
        joined([bucket[3].hex() for bucket in buckets]),
        joined([lease.account_id for lease in leases]),
        joined([lease.id for lease in leases]),
        joined([lease.meter for lease in leases]),
        joined([str(lease.reserved) for lease in leases]),
        [lease.acquire_time for lease in leases],
        [lease.expire_time for lease in leases],
        joined([lease.key_id or NONE for lease in leases]),
        joined([account_id for account_id, _ in settled.ended]),
        joined([lease_id for _, lease_id in settled.ended]),
        joined([account_id for account_id, _ in taken_back]),
        joined([key for _, key in taken_back]),
        joined([event.id for event in events]),
        joined([event.type for event in events]),
        joined([event.subject for event in events]),
        joined([event.account_id for event in events]),
        joined([event.data.hex() for event in events]),
    ]


def joined(elements: list[str]) -> str | None:
    """As `quota_save` takes it."""
    return APART.join(elements) if elements else None
