"""DESIGN §11 as checks of quota's side: grants, counters, keys, versions. See `tests/invariants.py`."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from services.quota.domain import Kind, charge
from services.quota.domain.account import Account, Counters, Terms
from services.quota.domain.leasing import SETTLED
from services.quota.events import to_plan, to_snapshot
from tests.evidence import Evidence
from tollway.billing.v1 import entitlement_pb2, events_pb2
from tollway.quota.v1 import quota_pb2


def announced_snapshots(evidence: Evidence) -> dict[tuple[str, int], list[entitlement_pb2.Entitlements]]:
    """What billing announced, by account and version."""
    found = defaultdict(list)
    for row in evidence.billing["outbox"]:
        if row["type"] == events_pb2.EntitlementsChanged.DESCRIPTOR.full_name:
            event = events_pb2.EntitlementsChanged.FromString(row["data"])
            if not event.snapshot:  # told again for whoever is new
                found[row["account_id"], event.entitlements.version].append(event.entitlements)
    return found


def uses(evidence: Evidence) -> list[dict[str, Any]]:
    """Lines of the ledger that count units of meters, in the order in which they were decided."""
    lines = [line for line in evidence.quota["idem"] if not line["reversed"] and line["meter"].isprintable()]
    return sorted(lines, key=lambda line: line["decide_time"])


def no_grant_exceeded_its_limit(evidence: Evidence) -> Iterator[str]:
    """1: what each caller was told was within the limit of the version it was decided on."""
    snapshots = announced_snapshots(evidence)
    for line in uses(evidence):
        who = f"account {line['account_id']}, key {line['key']!r}"
        decision = quota_pb2.Decision.FromString(line["answer"])
        if not decision.allowed:
            yield f"1: {who}: the ledger holds a refusal"
        of_version = snapshots.get((line["account_id"], decision.version))
        if not of_version:
            yield f"1: {who}: decided on version {decision.version}, which billing never announced"
            continue
        limits = {limit.name: limit for limit in of_version[0].limits}
        for state in decision.limits:
            known = limits.get(state.name)
            # What was held before a limit went down stays held, and what a lease held may be settled.
            may_exceed = line["key"].startswith(SETTLED) or (
                state.kind == quota_pb2.LIMIT_KIND_CONCURRENCY and not decision.HasField("lease")
            )
            if known is not None and known.kind == entitlement_pb2.LIMIT_KIND_CAP:
                if state.auto_stop and state.HasField("limit") and state.used > state.limit and not may_exceed:
                    yield f"1: {who}: {state.used} were granted, and the account's cap is {state.limit}"
            elif known is None or (known.limit if known.HasField("limit") else None) != (
                state.limit if state.HasField("limit") else None
            ):
                yield f"1: {who}: limit {state.name} is not that of version {decision.version}"
            elif state.HasField("limit") and state.used > state.limit and not may_exceed:
                yield f"1: {who}: {state.used} of {state.limit} were granted"


def no_burst_exceeded_its_rate(evidence: Evidence) -> Iterator[str]:
    """1: in no window did an account, or one of its keys, get more units than its rate allows."""
    snapshots = announced_snapshots(evidence)
    plans = {who: to_plan(to_snapshot(announced[0]).plan) for who, announced in snapshots.items()}
    granted: dict[tuple[str, str, str], list[tuple[datetime, int]]] = defaultdict(list)
    for line in uses(evidence):
        account_id, at = line["account_id"], line["decide_time"]
        plan = plans.get((account_id, quota_pb2.Decision.FromString(line["answer"]).version))
        for rate in plan.rates_of.get(line["meter"], ()) if plan else ():
            if rate.limit is None or rate.window is None or line["key"].startswith(SETTLED):
                continue
            log = granted[account_id, rate.name, line["key_id"] if rate.per_key else ""]
            log.append((at, line["amount"]))
            units = sum(amount for when, amount in log if when > at - rate.window)
            if units > rate.limit:
                yield f"1: account {account_id}: {units} of {rate.limit} units of {rate.name} in one window"


def counters_equal_the_ledger(evidence: Evidence) -> Iterator[str]:
    """2: an account's counters are its ledger, counted again (it reaches back 48 hours, as far as any test).

    The month is plainly summed; which billing period a use fell into depends on the version it was decided on.
    """
    snapshots = announced_snapshots(evidence)
    expected: dict[str, Counters] = defaultdict(dict)
    left: dict[str, Terms] = defaultdict(dict)
    months: Counter[tuple[str, str, datetime]] = Counter()
    for line in uses(evidence):
        account_id, at = line["account_id"], line["decide_time"]
        month = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        months[account_id, line["meter"], month] += line["amount"]
        version = quota_pb2.Decision.FromString(line["answer"]).version
        for announced in snapshots.get((account_id, version), [])[:1]:
            seen = to_snapshot(announced)
            plan = to_plan(seen.plan)
            counters, terms = expected[account_id], left[account_id]
            account = Account(account_id, version, plan, seen.anchor, seen.interval, counters, at, terms=terms)
            charge(account, line["meter"], line["amount"])
    held = {row["id"]: json.loads(row["counters"]) for row in evidence.quota["account"]}
    for account_id in held.keys() | expected.keys():
        if held.get(account_id) != expected.get(account_id, {}):
            yield f"2: account {account_id}: counters {held.get(account_id)}, its ledger makes {expected[account_id]}"
    for (account_id, meter, month), granted in months.items():
        start, used = held.get(account_id, {}).get(meter, {}).get("month", (0, 0))
        if start == int(month.timestamp()) and used != granted:
            yield f"2: account {account_id}: {used} {meter} in {month:%Y-%m}, the ledger says {granted}"


def a_key_has_one_answer(evidence: Evidence) -> Iterator[str]:
    """3."""
    times = Counter((line["account_id"], line["key"]) for line in evidence.quota["idem"])
    for (account_id, key), count in times.items():
        if count > 1:
            yield f"3: account {account_id}: key {key!r} was granted {count} times"


def leases_keep_to_their_limits(evidence: Evidence) -> Iterator[str]:
    """4: what lives now is within the concurrency of the plan, and each lease was granted once."""
    plans = {row["id"]: to_plan(row["data"]) for row in evidence.quota["plan"]}
    plan_of = {row["id"]: plans[row["plan_id"]] for row in evidence.quota["account"]}
    acquired: Counter[tuple[str, str]] = Counter()
    newest = max((line["decide_time"] for line in evidence.quota["idem"]), default=None)
    for line in evidence.quota["idem"]:
        decision = quota_pb2.Decision.FromString(line["answer"])
        if decision.HasField("lease"):
            acquired[line["account_id"], decision.lease.id] += 1
    live: dict[str, Counter[str]] = defaultdict(Counter)
    for row in evidence.quota["lease"]:
        if acquired[row["account_id"], row["id"]] != 1:
            yield f"4: account {row['account_id']}: lease {row['id']} has no single grant"
        if newest is not None and row["expire_time"] > newest:
            live[row["account_id"]][row["meter"]] += 1
    for account_id, meters in live.items():
        for limit in plan_of[account_id].limits:
            held = sum(meters[meter] for meter in limit.meters)
            if limit.kind is Kind.CONCURRENCY and limit.limit is not None and held > limit.limit:
                yield f"4: account {account_id}: {held} leases live, {limit.name} allows {limit.limit}"


def quota_has_billings_version(evidence: Evidence) -> Iterator[str]:
    """9: every account is known to quota, with billing's version, tier and period; versions never went back."""
    plans = {row["id"]: to_plan(row["data"]) for row in evidence.quota["plan"]}
    held = {row["id"]: row for row in evidence.quota["account"]}
    for row in evidence.billing["entitlement"]:
        mine = held.get(row["account_id"])
        if mine is None:
            yield f"9: account {row['account_id']}: quota does not know it"
            continue
        anchor = row["period_anchor"] if row["period_interval"] else None
        theirs = (row["version"], row["tier"], row["status"], anchor, row["period_interval"])
        ours = (mine["version"], plans[mine["plan_id"]].tier, mine["status"], mine["anchor"], mine["interval"])
        if ours != theirs:
            yield f"9: account {row['account_id']}: quota has {ours[:3]}, billing {theirs[:3]}"
    newest: dict[str, int] = {}
    # In the order of the lane's decisions: under the account's lock, the database's clock.
    for line in uses(evidence):
        version = quota_pb2.Decision.FromString(line["answer"]).version
        if version < newest.get(line["account_id"], 0):
            yield f"9: account {line['account_id']}: key {line['key']!r} was decided on an older version"
        newest[line["account_id"]] = max(version, newest.get(line["account_id"], 0))
