"""Who calls, and what they are in an account: an API key, a person who signed in, or one whom an issuer vouches for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.billing.application import accounts, audit, auth, key_sessions, sessions
from services.billing.application.context import Context
from services.billing.application.names import slug_of
from services.billing.domain.principal import Actor, ActorKind, Role
from services.billing.errors import AccountNotFound
from services.billing.storage.accounts import Account
from services.billing.storage.identity import Member
from services.billing.storage.keys import KeyOwner
from services.kit.errors import InvalidArgument, Unauthenticated
from services.kit.ids import new_id

MOST = 1000
_NO_ACCOUNT = "There is no such account."  # for another tenant's as for an unknown one


@dataclass(frozen=True)
class Outside:
    """What a verified token of an outside issuer says."""

    issuer: str
    external_id: str  # the organization, else the user: the account is its own
    subject: str  # the person
    role: Role
    slug: str = ""


@dataclass(frozen=True)
class Credential:
    """One of the three."""

    api_key: str = ""
    session_token: str = ""
    outside: Outside | None = None


@dataclass(frozen=True)
class Principal:
    account: Account
    actor: Actor
    role: Role | None  # None: an API key that is no more than that
    tier: str = ""
    version: int = 0
    key_id: str = ""
    key_kind: str = ""
    scopes: tuple[str, ...] = ()
    key_revoke_time: datetime | None = None
    key_meter: str = ""


def of_key(owner: KeyOwner, context: Context) -> Principal:
    """CONTRACT: "In local mode a key of an account's owner counts as a session for the org routes"."""
    kind = context.catalog.key_kinds[owner.key_kind]
    return Principal(
        account=owner.account,
        actor=Actor(ActorKind.KEY, owner.key_id),
        role=Role.OWNER if context.settings.local and owner.role is Role.OWNER else None,
        tier=owner.tier,
        version=owner.version,
        key_id=owner.key_id,
        key_kind=owner.key_kind,
        scopes=tuple(kind.scopes),
        key_revoke_time=owner.revoke_time,
        key_meter=kind.meter or "",
    )


async def resolve_outside(outside: Outside, context: Context) -> tuple[Principal, bool]:
    """The identity's account, made on first sight; and whether it was. The token was verified by the caller."""
    _check(outside)
    async with context.unit_of_work() as uow:
        found = await uow.outside.account(outside.issuer, outside.external_id)
        if found is not None:
            return _outside_principal(found, outside), False
        await uow.outside.lock(outside.issuer, outside.external_id)
        found = await uow.outside.account(outside.issuer, outside.external_id)
        if found is None:
            now = context.business.now()
            name = outside.slug or outside.external_id
            # The issuer tells no address: receipts go to the one that Stripe's customer has.
            new = Account(new_id("acct"), slug_of(name), name[:100], "", None, now)
            account = await accounts.open_account(new, uow, context)
            await uow.outside.add(outside.issuer, outside.external_id, account.id, now)
            actor = Actor(ActorKind.OUTSIDE, outside.subject)
            await audit.record(
                uow,
                context,
                account.id,
                actor,
                "account.created",
                account.id,
                slug=account.slug,
                issuer=outside.issuer,
                external_id=outside.external_id,
            )
            await uow.commit()
            return _outside_principal(account, outside), True
    return _outside_principal(found, outside), False


def _check(outside: Outside) -> None:
    for name, value, most in (
        ("issuer", outside.issuer, 500),
        ("external_id", outside.external_id, 255),
        ("subject", outside.subject, 255),
        ("slug", outside.slug, 255),
    ):
        if len(value) > most or not value.isprintable() or (not value and name != "slug"):
            raise InvalidArgument(f"1 to {most} printable characters are expected.", field=name)


def _outside_principal(account: Account, outside: Outside) -> Principal:
    return Principal(account, Actor(ActorKind.OUTSIDE, outside.subject), outside.role)


async def authorize_org(slug: str, credential: Credential, context: Context) -> Principal:
    """Who the credential is in the account of this slug. Raises AccountNotFound, alike for an unknown account and for
    one that the credential has no part in."""
    if _is_person(credential):
        session = await sessions.resolve_session(credential.session_token, context)
        async with context.unit_of_work() as uow:
            account = await uow.accounts.by_slug(slug)
            role = await uow.memberships.role(account.id, session.user.id)
        if role is None:
            raise AccountNotFound(_NO_ACCOUNT)
        return Principal(account, Actor(ActorKind.SESSION, session.user.id), role)
    principal = await _only_account(credential, context)
    if principal.account.slug != slug:
        raise AccountNotFound(_NO_ACCOUNT)
    return principal


async def list_orgs(credential: Credential, context: Context) -> list[tuple[Account, Role | None]]:
    """The accounts that the credential has a part in, by slug."""
    if _is_person(credential):
        session = await sessions.resolve_session(credential.session_token, context)
        async with context.unit_of_work() as uow:
            return list(await uow.memberships.of_user(session.user.id, MOST))
    principal = await _only_account(credential, context)
    return [(principal.account, principal.role)]


def _is_person(credential: Credential) -> bool:
    return bool(credential.session_token) and not credential.session_token.startswith(key_sessions.PREFIX)


async def _only_account(credential: Credential, context: Context) -> Principal:
    """Of a credential that belongs to one account: a key, a session that is one, or an outside identity."""
    if credential.session_token:
        return of_key(await key_sessions.key_of(credential.session_token, context), context)
    if credential.api_key:
        return of_key(await auth.authenticate(credential.api_key, context), context)
    if credential.outside is not None:
        principal, _ = await resolve_outside(credential.outside, context)
        return principal
    raise Unauthenticated("A credential is expected.", reason="CREDENTIAL_MISSING")


async def list_members(account_id: str, context: Context) -> list[Member]:
    async with context.unit_of_work() as uow:
        return await uow.memberships.of_account(account_id, MOST)
