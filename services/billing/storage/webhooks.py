"""The webhook log, and the marks that say which accounts must be read from Stripe again (DESIGN §4)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy import case, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.errors import EventNotFound
from services.billing.storage.tables import billing_sync, webhook_event

PENDING, APPLIED, IGNORED, FOREIGN, DEAD = "pending", "applied", "ignored", "ignored_foreign", "dead"


@dataclass(frozen=True)
class WebhookEvent:
    id: str
    type: str
    customer_id: str
    invoice_id: str
    charge_id: str  # of a refund or dispute
    payload: bytes
    create_time: datetime


@dataclass(frozen=True)
class Heard:
    """An event as it came. `account_hint`: the account that its object names, when it is one of ours; may be empty."""

    event: WebhookEvent
    account_hint: str


@dataclass(frozen=True)
class Ingested:
    event_id: str
    duplicate: bool


@dataclass(frozen=True)
class NewEvent:
    """An event with what it is to us. `mark`: the sync that will have applied it."""

    event: WebhookEvent
    status: str
    account_id: str | None
    mark: int | None


@dataclass(frozen=True)
class StoredEvent:
    id: str
    type: str
    account_id: str | None
    customer_id: str
    status: str
    create_time: datetime
    receive_time: datetime


_STORED = [webhook_event.c[field.name] for field in fields(StoredEvent)]


@dataclass(frozen=True)
class Claimed:
    """An account whose mark this process works on."""

    account_id: str
    wanted: int
    attempts: int


@dataclass(frozen=True)
class PendingInvoice:
    """An invoice that pending events name, and when Stripe first said that a charge for it failed."""

    invoice_id: str
    failure_time: datetime | None
    action_required: bool


class WebhookEvents:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, new: Sequence[NewEvent], *, now: datetime) -> set[str]:
        """The ids of those that were not stored before."""
        rows = [
            {**vars(each.event), "status": each.status, "account_id": each.account_id, "mark": each.mark}
            for each in sorted(new, key=lambda each: each.event.id)  # two writers in one order cannot block each other
        ]
        statement = insert(webhook_event).values([{**row, "receive_time": now} for row in rows])
        statement = statement.on_conflict_do_nothing(index_elements=["id"])
        return set((await self._connection.execute(statement.returning(webhook_event.c.id))).scalars())

    async def known(self, event_ids: Sequence[str]) -> set[str]:
        statement = select(webhook_event.c.id).where(webhook_event.c.id.in_(event_ids))
        return set((await self._connection.execute(statement)).scalars())

    async def stored(self, status: str, account_id: str, limit: int) -> Sequence[StoredEvent]:
        """Newest first; of any status, of any account, when these are empty."""
        statement = select(*_STORED).order_by(webhook_event.c.receive_time.desc(), webhook_event.c.id).limit(limit)
        if status:
            statement = statement.where(webhook_event.c.status == status)
        if account_id:
            statement = statement.where(webhook_event.c.account_id == account_id)
        return [StoredEvent(*row) for row in (await self._connection.execute(statement)).all()]

    async def get(self, event_id: str) -> tuple[StoredEvent, bytes]:
        """With what Stripe sent. Raises EventNotFound."""
        statement = select(*_STORED, webhook_event.c.payload).where(webhook_event.c.id == event_id)
        row = (await self._connection.execute(statement)).first()
        if row is None:
            raise EventNotFound("There is no such event.")
        return StoredEvent(*row[:-1]), row[-1]

    async def reopen(self, event_id: str, mark: int | None) -> None:
        """Pending again, as of the mark; without an account its owner is looked for anew."""
        statement = update(webhook_event).where(webhook_event.c.id == event_id)
        await self._connection.execute(statement.values(status=PENDING, mark=mark))

    async def pending_invoices(self, account_id: str, wanted: int) -> list[PendingInvoice]:
        failed = ("invoice.payment_failed", "invoice.payment_action_required")
        statement = (
            select(
                webhook_event.c.invoice_id,
                func.min(webhook_event.c.create_time).filter(webhook_event.c.type.in_(failed)),
                func.bool_or(webhook_event.c.type == failed[1]),
            )
            .where(
                webhook_event.c.account_id == account_id,
                webhook_event.c.status == PENDING,
                webhook_event.c.mark <= wanted,
                webhook_event.c.invoice_id != "",
            )
            .group_by(webhook_event.c.invoice_id)
        )
        return [PendingInvoice(*row) for row in (await self._connection.execute(statement)).all()]

    async def pending_charges(self, account_id: str, wanted: int) -> list[str]:
        """Charges that pending events of refunds and disputes name."""
        statement = (
            select(webhook_event.c.charge_id)
            .where(
                webhook_event.c.account_id == account_id,
                webhook_event.c.status == PENDING,
                webhook_event.c.mark <= wanted,
                webhook_event.c.charge_id != "",
            )
            .distinct()
        )
        return list((await self._connection.execute(statement)).scalars())

    async def charges_without_customer(self, limit: int) -> list[str]:
        """Charges that pending events name without saying whose they are, as those of disputes do."""
        nobodys = (webhook_event.c.status == PENDING) & (webhook_event.c.customer_id == "")
        statement = select(webhook_event.c.charge_id).where(nobodys).distinct().limit(limit)
        return list((await self._connection.execute(statement)).scalars())

    async def name_customer(self, charge_id: str, customer_id: str) -> None:
        """Notes whose charge it is; nobody's (empty) lets its events go."""
        statement = update(webhook_event).where(
            webhook_event.c.charge_id == charge_id,
            webhook_event.c.status == PENDING,
            webhook_event.c.customer_id == "",
        )
        values = {"customer_id": customer_id} if customer_id else {"status": FOREIGN}
        await self._connection.execute(statement.values(**values))

    async def finish(self, account_id: str, wanted: int, status: str) -> None:
        """Gives the account's pending events up to this mark their final status."""
        statement = update(webhook_event).where(
            webhook_event.c.account_id == account_id,
            webhook_event.c.status == PENDING,
            webhook_event.c.mark <= wanted,
        )
        await self._connection.execute(statement.values(status=status))

    async def unowned_customers(self, limit: int) -> list[str]:
        """Customers that pending events name and no account has claimed."""
        statement = (
            select(webhook_event.c.customer_id)
            .where(
                webhook_event.c.status == PENDING,
                webhook_event.c.account_id.is_(None),
                webhook_event.c.customer_id != "",
            )
            .distinct()
            .limit(limit)
        )
        return list((await self._connection.execute(statement)).scalars())

    async def assign(self, customer_id: str, account_id: str, mark: int) -> None:
        statement = update(webhook_event).where(
            webhook_event.c.customer_id == customer_id,
            webhook_event.c.status == PENDING,
            webhook_event.c.account_id.is_(None),
        )
        await self._connection.execute(statement.values(account_id=account_id, mark=mark))

    async def disown(self, customer_id: str) -> None:
        statement = update(webhook_event).where(
            webhook_event.c.customer_id == customer_id,
            webhook_event.c.status == PENDING,
            webhook_event.c.account_id.is_(None),
        )
        await self._connection.execute(statement.values(status=FOREIGN))


class Marks:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def want(self, account_id: str) -> int:
        """Marks the account; returns the mark. A new mark also ends an earlier failure's waiting."""
        return (await self.want_claimed(account_id, None, timedelta(0)))[0].wanted

    async def want_claimed(self, account_id: str, claim: str | None, hold: timedelta) -> tuple[Claimed, bool]:
        """Marks the account and claims it too, unless somebody works on it or it waits after a failure.

        The second of what is returned says whether it is claimed.
        """
        until = None if claim is None else func.now() + hold
        statement = insert(billing_sync).values(
            account_id=account_id,
            wanted=1,
            done=0,
            attempts=0,
            next_time=func.now(),
            error="",
            claim=claim,
            claim_until=until,
        )
        free = (billing_sync.c.claim_until.is_(None)) | (billing_sync.c.claim_until < func.now())
        free = free & (billing_sync.c.next_time <= func.now())
        set_ = {
            "wanted": billing_sync.c.wanted + 1,
            "next_time": func.least(billing_sync.c.next_time, func.now() + timedelta(seconds=5)),
        }
        if claim is not None:
            set_ |= {
                "claim": case((free, claim), else_=billing_sync.c.claim),
                "claim_until": case((free, func.now() + hold), else_=billing_sync.c.claim_until),
            }
        statement = statement.on_conflict_do_update(index_elements=["account_id"], set_=set_)
        returning = statement.returning(billing_sync.c.wanted, billing_sync.c.attempts, billing_sync.c.claim)
        wanted, attempts, holder = (await self._connection.execute(returning)).one()
        return Claimed(account_id, wanted, attempts), claim is not None and holder == claim

    async def waiting(self, account_ids: Collection[str]) -> set[str]:
        """Those of them that are about to be read."""
        statement = select(billing_sync.c.account_id).where(
            billing_sync.c.account_id.in_(account_ids), billing_sync.c.wanted > billing_sync.c.done
        )
        return set((await self._connection.execute(statement)).scalars())

    async def is_done(self, account_id: str, mark: int) -> bool:
        """Whether a read that began after the mark has been applied."""
        statement = select(billing_sync.c.done >= mark).where(billing_sync.c.account_id == account_id)
        return bool((await self._connection.execute(statement)).scalar_one_or_none())

    async def claim(self, claim: str, hold: timedelta, limit: int) -> list[Claimed]:
        """Claims accounts that are due; other workers leave them alone until the hold ends."""
        due = (
            select(billing_sync.c.account_id)
            .where(
                billing_sync.c.wanted > billing_sync.c.done,
                billing_sync.c.next_time <= func.now(),
                (billing_sync.c.claim_until.is_(None)) | (billing_sync.c.claim_until < func.now()),
            )
            .order_by(billing_sync.c.next_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(billing_sync)
            .where(billing_sync.c.account_id.in_(due.scalar_subquery()))
            .values(claim=claim, claim_until=func.now() + hold)
            .returning(
                billing_sync.c.account_id,
                billing_sync.c.wanted,
                billing_sync.c.attempts,
                # A claim that a crash takes back is free sooner: nothing to wait for the disk for.
                func.set_config("synchronous_commit", "off", True),
            )
        )
        return [Claimed(*row[:3]) for row in (await self._connection.execute(statement)).all()]

    async def hold(self, account_id: str, claim: str, hold: timedelta) -> None:
        """Holds on to a claim that is still ours."""
        statement = update(billing_sync).where(billing_sync.c.account_id == account_id, billing_sync.c.claim == claim)
        await self._connection.execute(statement.values(claim_until=func.now() + hold))

    async def finish(self, account_id: str, claim: str, done: int) -> bool:
        """False when the claim ran out and somebody else has it: then nothing of this sync may be kept."""
        statement = (
            update(billing_sync)
            .where(billing_sync.c.account_id == account_id, billing_sync.c.claim == claim)
            .values(done=done, claim=None, claim_until=None, attempts=0, next_time=func.now(), error="")
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def fail(self, account_id: str, claim: str, delay: timedelta, error: str) -> None:
        statement = (
            update(billing_sync)
            .where(billing_sync.c.account_id == account_id, billing_sync.c.claim == claim)
            .values(
                claim=None,
                claim_until=None,
                attempts=billing_sync.c.attempts + 1,
                next_time=func.now() + delay,
                error=error,
            )
        )
        await self._connection.execute(statement)
