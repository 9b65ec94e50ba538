"""What the measured accounts may do, and the accounts themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.quota.payloads import ACCOUNTS, REPLAYS
from services.billing.catalog import load_catalog
from services.billing.domain.api_key import NewKey, new_key
from services.billing.domain.entitlement import Entitlement
from services.billing.events import Announcer
from services.kit.clock import BusinessClock
from services.kit.database import create_engine
from services.quota.events import to_snapshot
from services.quota.main import prepare
from services.quota.storage import Plans, QuotaUnitOfWork
from tollway.billing.v1 import entitlement_pb2 as pb

PLENTY = 10**12
MINUTE = timedelta(seconds=60)
CATALOG = Path(__file__).parents[2] / "catalogs" / "manashiki.yaml"
SUSPENDED = "suspended_downloads"
OWN_CAP = '{{"caps": {{"{}": {{"limit": 1000000000000, "auto_stop": true}}}}}}'
# By plan: the cap that its accounts set on themselves, and its rates, each with the key it is counted for.
CAPS = {"plan_full": "download_cap", "plan_manashiki": "live_download_cap"}
RATES = {
    "plan_full": {"key_rate": "key_1", "account_rate": ""},
    "plan_manashiki": {"downloads_per_key": "key_1"},
}

# Copied from one account that came in as billing sends it. With empty logs: an account that exists has had some use.
_COPY = """
INSERT INTO account (id, version, plan_id, status, anchor, "interval", change_time, terms)
SELECT $1 || lpad(n::text, 7, '0'), version, plan_id, status, anchor, "interval", change_time, $4::text::json
FROM account, generate_series(0, $3::int - 1) AS n WHERE id = $2
"""
_LOGS = """
INSERT INTO bucket (account_id, name, key_id, log)
SELECT a.id, r.name, r.key_id, '' FROM account a, unnest($2::text[], $3::text[]) AS r (name, key_id)
WHERE a.id LIKE $1 || '%' ORDER BY a.id
"""
_KEYS = """
INSERT INTO api_key (hash, account_id, key_id, kind)
SELECT hash, account_id, 'key_1', 'live' FROM unnest($1::bytea[], $2::text[]) AS k (hash, account_id)
"""


def simple(account_id: str) -> pb.Entitlements:
    """One quota for the month."""
    return pb.Entitlements(
        account_id=account_id,
        version=1,
        tier="pro",
        meters=[pb.Meter(name="messages")],
        limits=[_limit("messages", pb.LIMIT_KIND_QUOTA, PLENTY, meters=("messages",), period=pb.PERIOD_MONTH)],
    )


def manashiki(account_id: str) -> pb.Entitlements:
    """The paid tier of catalogs/manashiki.yaml as billing announces it, in a billing period. Its rate is too high to
    refuse, for one key asks thousands of times a second here.
    """
    catalog = load_catalog(CATALOG)
    anchor = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    state = Entitlement(
        account_id=account_id,
        version=1,
        tier="paid",
        status="active",
        subscription_id="",
        price_id="",
        granted_price_id="",
        period_anchor=anchor,
        period_interval="month",
        period_start=anchor,
        period_end=None,
        cancel_at_period_end=False,
        catalog_hash=catalog.fingerprint("paid"),
    )
    found = Announcer(catalog, "https://example.com").entitlements(state, anchor)
    for limit in found.limits:
        if limit.kind == pb.LIMIT_KIND_RATE:
            limit.limit = 10**9
    return found


def full(account_id: str, *, month: int = PLENTY, per_key: int = 10**9, window: timedelta = MINUTE) -> pb.Entitlements:
    """Every kind, and more than manashiki has: a gate, a rate per key and one per account, a quota of the month and one
    of the billing period, a cap that the account may lower, and slots that two meters share; operators may throw the
    switch. Sold by the unit, so their totals are announced too.
    """
    live, both = ("live_downloads", SUSPENDED), ("live_downloads", "staging_downloads")
    found = pb.Entitlements(
        account_id=account_id,
        version=1,
        tier="paid",
        status="active",
        period_interval="month",
        meters=[
            pb.Meter(name="live_downloads", gate="downloads", overage_unit_price="0.8", currency="usd"),
            pb.Meter(name="staging_downloads", gate="downloads"),
            pb.Meter(name=SUSPENDED, gate="downloads"),
        ],
        gates={"downloads": True},
        limits=[
            _limit("key_rate", pb.LIMIT_KIND_RATE, per_key, window=window, scope=pb.RATE_SCOPE_KEY, meters=live),
            _limit("account_rate", pb.LIMIT_KIND_RATE, 10**9, window=MINUTE, scope=pb.RATE_SCOPE_ACCOUNT, meters=live),
            _limit("month_quota", pb.LIMIT_KIND_QUOTA, month, meters=live, period=pb.PERIOD_MONTH),
            _limit("billing_quota", pb.LIMIT_KIND_QUOTA, PLENTY, meters=live, period=pb.PERIOD_BILLING),
            _limit("download_cap", pb.LIMIT_KIND_CAP, None, meters=live, period=pb.PERIOD_BILLING),
            _limit("concurrency", pb.LIMIT_KIND_CONCURRENCY, 25, window=timedelta(minutes=10), meters=both),
        ],
        billing_url="https://example.com/billing",
        support_contact="mailto:help@example.com",
    )
    found.period_anchor.FromJsonString("2026-01-31T09:30:00Z")
    return found


def _limit(
    name: str, kind: pb.LimitKind.ValueType, limit: int | None, *, window: timedelta | None = None, **fields: Any
) -> pb.Limit:
    status = 402 if kind in (pb.LIMIT_KIND_QUOTA, pb.LIMIT_KIND_CAP) else 429
    refusal = pb.Refusal(reason=f"{name}_reached", http_status=status, detail=f"The limit {name} is reached.")
    message = pb.Limit(name=name, kind=kind, limit=limit, refusal=refusal, **fields)
    if window is not None:
        message.window.FromTimedelta(window)
    return message


async def load(dsn: str, connection: Any, *, many: int = 0) -> list[NewKey]:
    """The schema and the accounts; `many` are of the full plan, instead of all the others. Returns API keys, the n-th
    is that of the n-th account of the full plan.
    """
    engine = create_engine(dsn)
    await prepare(engine)
    found = [simple("plan_simple"), full("plan_full"), manashiki("plan_manashiki"), full("no_quota", month=0)]
    found.append(full("no_rate", per_key=1, window=timedelta(hours=1)))
    async with QuotaUnitOfWork(engine, Plans(), BusinessClock()) as uow:
        await uow.accounts.apply([to_snapshot(each) for each in found])
        await uow.commit()
    await engine.dispose()
    keys: list[NewKey] = []
    if many:
        await _copy(connection, "many_", "plan_full", many)
    else:
        terms = OWN_CAP.format(CAPS["plan_full"])
        await connection.execute("UPDATE account SET terms = $1::text::json WHERE id LIKE 'no\\_%'", terms)
        await _copy(connection, "acct_", "plan_simple", ACCOUNTS)
        await _copy(connection, "again_", "plan_full", REPLAYS)
        await _copy(connection, "mana_", "plan_manashiki", ACCOUNTS)
        for prefix in ("full_", "two_", "envoy_"):
            await _copy(connection, prefix, "plan_full", ACCOUNTS)
        keys = [new_key("mk_live_") for _ in range(ACCOUNTS)]
        accounts = [f"envoy_{number:07d}" for number in range(ACCOUNTS)]
        await connection.execute(_KEYS, [key.hash for key in keys], accounts)
        await connection.execute("INSERT INTO kill_switch VALUES ($1, true, 'measured', now())", SUSPENDED)
    for table in ("account", "bucket", "api_key", "kill_switch"):
        await connection.execute(f"VACUUM ANALYZE {table}")
    return keys


async def _copy(connection: Any, prefix: str, plan: str, count: int) -> None:
    terms = OWN_CAP.format(CAPS[plan]) if plan in CAPS else "{}"
    await connection.execute(_COPY, prefix, plan, count, terms, timeout=300)
    if rates := RATES.get(plan):
        names, key_ids = list(rates), list(rates.values())
        await connection.execute(_LOGS, prefix.replace("_", "\\_"), names, key_ids, timeout=300)
