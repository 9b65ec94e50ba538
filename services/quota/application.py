"""The use cases: consume, show usage, believe billing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.kit.errors import TollwayError
from services.kit.inbox import Received
from services.quota.domain import Account, Decision, Kind, LimitState, Period, Unknown, Use, decide
from services.quota.errors import AccountNotFound
from services.quota.events import Snapshot, to_snapshot
from services.quota.ports import Decider, Directory, Entitlements
from services.quota.storage import QuotaUnitOfWork
from tollway.billing.v1 import events_pb2

PLACE = "entitlements"

Result = Decision | TollwayError


async def consume(use: Use, decider: Decider, directory: Directory, time_left_s: float | None) -> Decision:
    """One decision. Raises the TollwayError that stopped it; a refusal is an answer."""
    outcome = (await decider.decide((use,), time_left_s))[0]
    if isinstance(outcome, Unknown):
        outcome = (await _ask_again((use,), decider, directory, time_left_s))[0]
    if isinstance(outcome, Decision):
        return outcome
    raise outcome


async def consume_batch(
    uses: Sequence[Use], decider: Decider, directory: Directory, time_left_s: float | None
) -> list[Result]:
    """Many decisions, each for itself; errors stand in their places."""
    outcomes = await decider.decide(uses, time_left_s)
    strangers = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Unknown)]
    if strangers:
        try:
            again = await _ask_again([uses[index] for index in strangers], decider, directory, time_left_s)
        except TollwayError as error:  # theirs alone: the others were decided
            again = [error] * len(strangers)
        for index, outcome in zip(strangers, again, strict=True):
            outcomes[index] = outcome
    return [outcome if not isinstance(outcome, Unknown) else AccountNotFound() for outcome in outcomes]


async def _ask_again(
    uses: Sequence[Use], decider: Decider, directory: Directory, time_left_s: float | None
) -> list[Result]:
    """Learns the accounts from billing, then decides for those that exist."""
    known = await directory.learn({use.account_id for use in uses})
    rest = [use for use in uses if use.account_id in known]
    decided = iter(await decider.decide(rest, time_left_s)) if rest else iter(())
    outcomes: list[Result] = []
    for use in uses:
        outcome = next(decided) if use.account_id in known else AccountNotFound()
        outcomes.append(AccountNotFound() if isinstance(outcome, Unknown) else outcome)
    return outcomes


@dataclass(frozen=True)
class MeterUsage:
    """`used` of the meter itself in its quota's period; `tightest` is the quota with the least left, if any."""

    meter: str
    used: int
    reset: datetime | None
    tightest: LimitState | None
    limits: list[LimitState]


@dataclass(frozen=True)
class Usage:
    account_id: str
    tier: str
    version: int
    meters: list[MeterUsage]


async def get_usage(
    account_id: str, key_id: str, new_uow: Callable[[], QuotaUnitOfWork], directory: Directory
) -> Usage:
    """What the account has used of each meter now, and the key of its limits per key.

    Raises AccountNotFound, BillingUnavailable.
    """
    stored = await _read(account_id, key_id, new_uow())
    if stored is None and await directory.learn([account_id]):
        stored = await _read(account_id, key_id, new_uow())
    if stored is None:
        raise AccountNotFound
    meters = [_usage_of(stored, name, key_id) for name in stored.plan.meters]
    return Usage(account_id, stored.plan.tier, stored.version, meters)


async def _read(account_id: str, key_id: str, uow: QuotaUnitOfWork) -> Account | None:
    async with uow:
        found = await uow.accounts.get(account_id, key_id)
    if found is None:
        return None
    return Account(
        account_id, found.version, found.plan, found.anchor, found.interval, found.counters, found.at, found.rates
    )


def _usage_of(account: Account, meter: str, key_id: str) -> MeterUsage:
    states = {state.name: state for state in decide(account, meter, 0, key_id=key_id).limits}
    quotas = [limit for limit in account.plan.limits_of[meter] if limit.kind is Kind.QUOTA]
    bound = [states[limit.name] for limit in quotas if limit.limit is not None]
    tightest = min(bound, key=lambda state: state.remaining or 0, default=None)
    period = next((limit.period for limit in quotas if tightest is None or limit.name == tightest.name), Period.MONTH)
    end = account.spans[period].end
    reset = None if end is None else datetime.fromtimestamp(end, UTC)
    return MeterUsage(meter, account.used(meter, period), reset, tightest, list(states.values()))


async def believe(event: Received, uow: QuotaUnitOfWork) -> None:
    """Acts on EntitlementsChanged: an older version than ours changes nothing."""
    assert isinstance(event.message, events_pb2.EntitlementsChanged)  # noqa: S101 - the consumer's only kind
    snapshot = to_snapshot(event.message.entitlements)
    async with uow:
        if await uow.inbox.accept(event):
            await uow.accounts.apply([snapshot])
            await uow.commit()


async def store(snapshots: Iterable[Snapshot], uow: QuotaUnitOfWork) -> None:
    """Keeps what billing answered."""
    async with uow:
        await uow.accounts.apply(snapshots)
        await uow.commit()


async def heal(entitlements: Entitlements, new_uow: Callable[[], QuotaUnitOfWork]) -> int:
    """Reads what changed at billing since the last time, so that a lost event heals. Returns how many did here."""
    async with new_uow() as uow:
        token = await uow.places.get(PLACE)
    healed, more = 0, True
    while more:
        snapshots, token, more = await entitlements.changed_since(token)
        async with new_uow() as uow:
            healed += await uow.accounts.apply(snapshots)
            # In the same transaction: a crash reads this page again and never skips it.
            await uow.places.keep(PLACE, token)
            await uow.commit()
    return healed
