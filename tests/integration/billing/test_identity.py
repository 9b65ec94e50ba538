"""Claims about users, sessions, outside identities and the audit log, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from services.billing.application import audit, keys, principals, sessions
from services.billing.application.principals import Credential, Outside
from services.billing.domain.api_key import new_key
from services.billing.domain.principal import Actor, ActorKind, Role
from services.billing.errors import AccountNotFound, SessionInvalid, UserNotFound
from services.billing.main import MIGRATIONS
from services.billing.storage import BillingUnitOfWork
from services.kit.database import create_engine
from services.kit.errors import InvalidArgument, Unauthenticated
from tests.integration.billing.conftest import Billing, running_billing

ACME = Outside("https://clerk.example", "org_1", "user_ada", Role.ADMIN, "acme")


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def downloads(billing_database: str, clock: Clock) -> AsyncIterator[Billing]:
    async with running_billing(billing_database, Path("tests/catalogs/downloads.yaml")) as started:
        yield replace(started, context=replace(started.context, business=clock, wall=clock))


async def test_a_sign_up_makes_an_owner_who_is_verified_by_signing_in_only(billing: Billing) -> None:
    made = await billing.sign_up("Ada@Example.com")
    (member,) = await principals.list_members(made.account.id, billing.context)
    assert (member.user.email, member.role, member.user.verify_time) == ("ada@example.com", Role.OWNER, None)
    session, _ = await sessions.create_session("ADA@example.com", billing.context)
    (member,) = await principals.list_members(made.account.id, billing.context)
    assert member.user == session.user
    assert member.user.verify_time is not None


async def test_a_second_account_of_one_address_is_the_same_persons(billing: Billing) -> None:
    accounts = [(await billing.sign_up("ada@example.com")).account for _ in range(3)]
    _, token = await sessions.create_session("ada@example.com", billing.context)
    listed = await principals.list_orgs(Credential(session_token=token), billing.context)
    assert {account.id for account, _ in listed} == {account.id for account in accounts}
    assert [account.slug for account, _ in listed] == sorted(account.slug for account in accounts)


async def test_a_session_is_good_until_it_is_ended_and_its_row_opens_nothing(billing: Billing) -> None:
    await billing.sign_up("ada@example.com")
    session, token = await sessions.create_session("ada@example.com", billing.context)
    assert (await sessions.resolve_session(token, billing.context)).id == session.id
    rows = str(await billing.rows("SELECT s::text FROM login_session s"))
    assert token not in rows
    assert token.encode().hex() not in rows
    for _ in range(2):
        await sessions.end_session(token, billing.context)
    with pytest.raises(SessionInvalid):
        await sessions.resolve_session(token, billing.context)


async def test_a_session_expires_and_is_forgotten_later(downloads: Billing, clock: Clock) -> None:
    await downloads.sign_up("ada@example.com")
    _, token = await sessions.create_session("ada@example.com", downloads.context)
    clock.ahead = sessions.LIFE - timedelta(minutes=1)
    await sessions.resolve_session(token, downloads.context)
    clock.ahead = sessions.LIFE
    with pytest.raises(SessionInvalid):
        await sessions.resolve_session(token, downloads.context)
    async with downloads.context.unit_of_work() as uow:
        await uow.sessions.forget(clock.now())
        await uow.commit()
    assert await downloads.rows("SELECT count(*) FROM login_session") == [(0,)]


@pytest.mark.parametrize("token", ["", "ses_", "ses_" + "0" * 33, "sk_live_x", "ses_\0", "é" * 37])
async def test_a_malformed_session_is_refused_without_a_database(billing: Billing, token: str) -> None:
    def no_database() -> BillingUnitOfWork:
        raise AssertionError("the database was asked")

    with pytest.raises(SessionInvalid):
        await sessions.resolve_session(token, replace(billing.context, unit_of_work=no_database))


async def test_nobody_signs_in_by_an_address_that_nobody_has(billing: Billing) -> None:
    with pytest.raises(UserNotFound):
        await sessions.create_session("nobody@example.com", billing.context)
    with pytest.raises(SessionInvalid):
        await sessions.resolve_session(new_key(sessions.PREFIX).secret, billing.context)


async def test_an_outside_identity_is_one_account_however_often_and_however_many_at_once(billing: Billing) -> None:
    answers = await asyncio.gather(*(principals.resolve_outside(ACME, billing.context) for _ in range(12)))
    assert len({principal.account.id for principal, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    principal = answers[0][0]
    assert (principal.account.slug, principal.role, principal.actor) == (
        "acme",
        Role.ADMIN,
        Actor(ActorKind.OUTSIDE, "user_ada"),
    )
    assert await billing.rows("SELECT count(*) FROM account") == [(1,)]
    assert await billing.rows("SELECT count(*) FROM api_key") == [(0,)]
    (changed,) = await billing.announced("EntitlementsChanged")
    assert (changed.entitlements.version, changed.entitlements.tier) == (1, "free")


async def test_issuer_and_id_together_name_the_account_and_a_taken_slug_is_no_way_in(billing: Billing) -> None:
    signed_up = (await billing.sign_up("acme@example.com")).account
    identities = (
        ACME,
        replace(ACME, issuer="https://other.example"),
        replace(ACME, external_id="org_2", slug=signed_up.slug),
    )
    found = [(await principals.resolve_outside(each, billing.context))[0].account for each in identities]
    assert len({account.id for account in (*found, signed_up)}) == 4
    assert len({account.slug for account in (*found, signed_up)}) == 4


@pytest.mark.parametrize("field", ["issuer", "external_id", "subject"])
@pytest.mark.parametrize("value", ["", "x" * 501, "a\0b", "a\nb"])
async def test_an_identity_that_is_none_is_refused_by_field(billing: Billing, field: str, value: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await principals.resolve_outside(replace(ACME, **{field: value}), billing.context)
    assert caught.value.field == field


async def test_every_credential_reaches_its_own_accounts_and_no_other(billing: Billing) -> None:
    ada, eve = await billing.sign_up("ada@example.com"), await billing.sign_up("eve@example.com")
    _, adas = await sessions.create_session("ada@example.com", billing.context)
    outside, _ = await principals.resolve_outside(ACME, billing.context)
    credentials = {
        ada.account.slug: [Credential(api_key=ada.api_key), Credential(session_token=adas)],
        eve.account.slug: [Credential(api_key=eve.api_key)],
        outside.account.slug: [Credential(outside=ACME)],
    }
    told = set()
    for slug in (*credentials, "nobody", "A", "\0"):
        for owner, theirs in credentials.items():
            for credential in theirs:
                if slug == owner:
                    principal = await principals.authorize_org(slug, credential, billing.context)
                    assert principal.account.slug == slug
                    continue
                with pytest.raises(AccountNotFound) as caught:
                    await principals.authorize_org(slug, credential, billing.context)
                told.add((caught.value.message, caught.value.error_reason))
    assert len(told) == 1
    with pytest.raises(Unauthenticated):
        await principals.authorize_org(ada.account.slug, Credential(), billing.context)


async def test_an_audit_row_stays_as_long_as_the_tier_of_its_day_said(downloads: Billing, clock: Clock) -> None:
    account = (await downloads.sign_up()).account
    actor = Actor(ActorKind.OPERATOR, "operator")

    async def write(action: str) -> None:
        async with downloads.context.unit_of_work() as uow:
            await audit.record(uow, downloads.context, account.id, actor, action, "x", count=1)
            await uow.commit()

    async def shown() -> list[str]:
        page = await audit.list_entries(account.id, 0, "", downloads.context)
        return [entry.action for entry in page.rows if entry.subject == "x"]

    for tier in ("free", "past_due", "enterprise"):
        await downloads.put_on(account.id, tier)
        await write(tier)
    await downloads.put_on(account.id, "free")  # a downgrade shortens nothing that was written
    for days, left in ((29, 3), (30, 2), (89, 2), (90, 1), (2556, 1), (2557, 0)):
        clock.ahead = timedelta(days=days, seconds=5)
        assert await shown() == ["enterprise", "past_due", "free"][:left]
        await audit.purge(downloads.context)
        assert await downloads.rows("SELECT count(*) FROM audit_log WHERE subject = 'x'") == [(left,)]


async def test_a_change_that_is_not_made_leaves_no_row(downloads: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    account = (await downloads.sign_up()).account
    before = await downloads.rows("SELECT count(*) FROM audit_log")

    def crash(name: str) -> None:
        raise RuntimeError(name)

    monkeypatch.setattr(keys, "failpoint", crash)
    command = keys.IssueKey(account.id, Actor(ActorKind.SESSION, "usr_1"), "test", "CI")
    with pytest.raises(RuntimeError, match=r"billing\.issue_key\.before_commit"):
        await keys.issue_key(command, downloads.context)
    assert await downloads.rows("SELECT count(*) FROM audit_log") == before
    assert len(await downloads.announced("KeyIssued")) == 1


async def test_purging_at_once_from_many_replicas_deletes_each_row_once(downloads: Billing, clock: Clock) -> None:
    for number in range(5):
        await downloads.sign_up(f"a{number}@example.com")
    rows = (await downloads.rows("SELECT count(*) FROM audit_log"))[0][0]
    clock.ahead = timedelta(days=31)
    assert sum(await asyncio.gather(*(audit.purge(downloads.context) for _ in range(4)))) == rows


async def test_the_migration_gives_every_account_that_signed_up_before_its_owner(database: str) -> None:
    from alembic import command
    from alembic.config import Config

    def upgrade(connection: object, to: str) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, to)

    engine = create_engine(database)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(upgrade, "0001")
        async with engine.begin() as connection:
            for number, email in enumerate(("Ada@Example.com", "ada@example.com", "bob@example.com", "")):
                values = {"id": f"acct_{number}", "email": email}
                await connection.execute(
                    text("INSERT INTO account VALUES (:id, :id, 'A', :email, NULL, now())"), values
                )
                await connection.execute(
                    text(
                        "INSERT INTO api_key (id, account_id, kind, name, hash, shown, create_time) "
                        "VALUES (:id, :id, 'live', 'k', convert_to(:id, 'UTF8'), 's', now())"
                    ),
                    {"id": f"acct_{number}"},
                )
        async with engine.connect() as connection:
            await connection.run_sync(upgrade, "0002")
        async with engine.connect() as connection:
            found = await connection.execute(
                text(
                    "SELECT m.account_id, u.email, m.role, u.verify_time IS NULL, k.user_id = u.id FROM membership m "
                    "JOIN app_user u ON u.id = m.user_id JOIN api_key k ON k.account_id = m.account_id ORDER BY 1"
                )
            )
            rows = [tuple(row) for row in found]
    finally:
        await engine.dispose()
    assert rows == [
        ("acct_0", "ada@example.com", "owner", True, True),
        ("acct_1", "ada@example.com", "owner", True, True),
        ("acct_2", "bob@example.com", "owner", True, True),
    ]
