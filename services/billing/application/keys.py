"""API keys: issue, list, rotate, revoke. All changes of an account's keys hold its row, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.billing import events
from services.billing.application import audit, idempotency, paging
from services.billing.application.context import Context
from services.billing.application.names import checked_name
from services.billing.domain.api_key import new_key, refuse_another, sharing_allowance
from services.billing.domain.principal import Actor, ActorKind
from services.billing.errors import KeyEnded, KeyNotFound, UnknownKeyKind
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.billing.storage.keys import ApiKey
from services.kit.errors import InvalidArgument
from services.kit.failpoint import failpoint
from services.kit.ids import new_id
from tollway.billing.v1 import key_pb2

OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=7)


@dataclass(frozen=True)
class IssueKey:
    account_id: str
    actor: Actor
    kind: str
    name: str
    request_id: str = ""


@dataclass(frozen=True)
class RotateKey:
    account_id: str
    actor: Actor
    key_id: str
    overlap: timedelta | None = None
    request_id: str = ""


@dataclass(frozen=True)
class RevokeKey:
    account_id: str
    actor: Actor
    key_id: str


def billing_page(account: Account, context: Context) -> str:
    """Where the account's people buy more."""
    return f"{context.settings.public_url}/dash/{account.slug}/billing"


async def issue_key(command: IssueKey, context: Context) -> key_pb2.IssueKeyResponse:
    """A key of the kind, if the tier of now allows another one. Two at once never exceed the allowance."""
    if command.kind not in context.catalog.key_kinds:
        known = ", ".join(context.catalog.key_kinds)
        raise UnknownKeyKind(f"There is no such kind of key; there are: {known}.", field="kind")
    name = checked_name(command.name)
    request_id = idempotency.checked_request_id(command.request_id)
    scope, mark = _scope("issue_key", command), idempotency.fingerprint(command.kind, name)
    async with context.unit_of_work() as uow:
        if request_id:
            earlier = await idempotency.find(scope, request_id, mark, uow, context.vault)
            if earlier is not None:
                return key_pb2.IssueKeyResponse.FromString(earlier)
        account = await uow.accounts.get(command.account_id, lock=True)
        tier = (await uow.entitlements.get(command.account_id)).tier
        held = await uow.keys.held(command.account_id, sharing_allowance(context.catalog, command.kind))
        refuse_another(context.catalog, command.kind, tier, held, billing_page(account, context))
        user_id = await _user(command.actor, command.account_id, uow)
        key, secret = await add_key(command.account_id, command.kind, name, user_id, uow, context)
        await audit.record(
            uow, context, command.account_id, command.actor, "key.issued", key.id, kind=key.kind, name=name
        )
        response = key_pb2.IssueKeyResponse(key=key_message(key), api_key=secret)
        if request_id:
            answer, now = response.SerializeToString(), context.wall.now()
            await idempotency.keep(scope, request_id, mark, answer, uow, context.vault, now)
        failpoint("billing.issue_key.before_commit")
        await uow.commit()
    return response


def _scope(what: str, command: IssueKey | RotateKey) -> str:
    """Where a request id counts: one person's answer, which holds a key, is nobody else's."""
    return f"{what} {command.account_id} {command.actor.kind} {command.actor.id}"


async def add_key(
    account_id: str, kind: str, name: str, user_id: str | None, uow: BillingUnitOfWork, context: Context
) -> tuple[ApiKey, str]:
    """The row of a new key with its KeyIssued, and the key itself, which nothing keeps."""
    made = new_key(context.catalog.key_kinds[kind].prefix)
    now = context.business.now()
    key = ApiKey(new_id("key"), account_id, kind, name, made.hash, made.shown, now, user_id=user_id)
    await uow.keys.add(key)
    uow.outbox.add(events.key_issued(key), account_id)
    return key, made.secret


async def _user(actor: Actor, account_id: str, uow: BillingUnitOfWork) -> str | None:
    """The user for whom the actor acts, if one is known here."""
    if actor.kind is ActorKind.SESSION:
        return actor.id if await uow.memberships.role(account_id, actor.id) is not None else None
    if actor.kind is ActorKind.KEY:
        try:
            return (await uow.keys.get(account_id, actor.id)).user_id
        except KeyNotFound:
            return None
    return None


async def list_keys(account_id: str, page_size: int, page_token: str, context: Context) -> paging.Page[ApiKey]:
    """Newest first, revoked ones too."""
    size, before = paging.checked(page_size, page_token, "key")
    async with context.unit_of_work() as uow:
        found = await uow.keys.list(account_id, before, size + 1)
    return paging.page(found, size, lambda key: key.id)


async def rotate_key(command: RotateKey, context: Context) -> key_pb2.RotateKeyResponse:
    """A successor now, and an end for the old key. An account can hold no more working keys by rotating than two for
    each that it holds: a predecessor that is still in its overlap ends at once."""
    overlap = _checked_overlap(command.overlap)
    request_id = idempotency.checked_request_id(command.request_id)
    scope = _scope("rotate_key", command)
    mark = idempotency.fingerprint(command.key_id, str(overlap.total_seconds()))
    async with context.unit_of_work() as uow:
        if request_id:
            earlier = await idempotency.find(scope, request_id, mark, uow, context.vault)
            if earlier is not None:
                return key_pb2.RotateKeyResponse.FromString(earlier)
        await uow.accounts.get(command.account_id, lock=True)
        old = await uow.keys.get(command.account_id, command.key_id)
        if old.revoke_time is not None:
            raise KeyEnded("This key was revoked or rotated already.", field="key_id")
        now = context.business.now()
        before = await uow.keys.predecessor(old.id)
        if before is not None and not before.ended(now):
            await _end(before, now, None, uow)
        new, secret = await add_key(command.account_id, old.kind, old.name, old.user_id, uow, context)
        replaced = await _end(old, now + overlap, new.id, uow)
        await audit.record(
            uow,
            context,
            command.account_id,
            command.actor,
            "key.rotated",
            old.id,
            kind=old.kind,
            successor=new.id,
            overlap_seconds=int(overlap.total_seconds()),
        )
        response = key_pb2.RotateKeyResponse(key=key_message(new), api_key=secret, replaced=key_message(replaced))
        if request_id:
            answer = response.SerializeToString()
            await idempotency.keep(scope, request_id, mark, answer, uow, context.vault, context.wall.now())
        failpoint("billing.rotate_key.before_commit")
        await uow.commit()
    return response


def _checked_overlap(overlap: timedelta | None) -> timedelta:
    if overlap is None:
        return OVERLAP
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP or overlap.microseconds:
        days = LONGEST_OVERLAP.days
        raise InvalidArgument(f"Whole seconds from 0 to {days} days are expected.", field="overlap")
    return overlap


async def revoke_key(command: RevokeKey, context: Context) -> ApiKey:
    """Ends the key now. Once it is over, doing it again changes nothing."""
    async with context.unit_of_work() as uow:
        await uow.accounts.get(command.account_id, lock=True)
        key = await uow.keys.get(command.account_id, command.key_id)
        now = context.business.now()
        if key.ended(now):
            return key
        revoked = await _end(key, now, None, uow)
        await audit.record(uow, context, command.account_id, command.actor, "key.revoked", key.id, kind=key.kind)
        failpoint("billing.revoke_key.before_commit")
        await uow.commit()
    return revoked


async def end_all(account_id: str, at: datetime, uow: BillingUnitOfWork) -> None:
    """Ends every key of the account that has not ended by then."""
    before = ""
    while keys := await uow.keys.list(account_id, before, paging.MOST):
        for key in keys:
            if not key.ended(at):
                await _end(key, at, None, uow)
        before = keys[-1].id


async def _end(key: ApiKey, at: datetime, successor_id: str | None, uow: BillingUnitOfWork) -> ApiKey:
    ended = replace(key, revoke_time=at, successor_id=successor_id or key.successor_id)
    await uow.keys.end(key.id, at, successor_id)
    uow.outbox.add(events.key_revoked(ended), key.account_id)
    return ended


def key_message(key: ApiKey) -> key_pb2.Key:
    return key_pb2.Key(
        id=key.id,
        account_id=key.account_id,
        kind=key.kind,
        name=key.name,
        shown=key.shown,
        create_time=events.timestamp(key.create_time),
        revoke_time=events.timestamp(key.revoke_time),
        successor_id=key.successor_id or "",
    )
