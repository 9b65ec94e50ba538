"""Claims about signing in a program by a code, and about more accounts of one person, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.billing.application import audit, auth, device_logins, key_sessions, orgs, principals, sessions
from services.billing.application.device_logins import MISSES, WINDOW
from services.billing.application.principals import Credential
from services.billing.domain import device_login as domain
from services.billing.domain.api_key import new_key
from services.billing.domain.principal import Role
from services.billing.errors import (
    AccountNotFound,
    DeviceCodeRateLimited,
    DeviceLoginNotFound,
    DeviceLoginRateLimited,
    DeviceLoginRefused,
    IdempotencyKeyReused,
    SessionInvalid,
    SessionRequired,
    SignUpRateLimited,
)
from services.kit.errors import InvalidArgument
from tests.integration.billing.conftest import Billing, running_billing
from tests.integration.billing.test_identity import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def outside_local(billing_database: str, clock: Clock) -> AsyncIterator[Billing]:
    more: dict[str, Any] = {"local": False, "rpc_token": "t" * 32, "logins_per_address": 3}
    async with running_billing(billing_database, **more) as started:
        yield replace(started, context=replace(started.context, wall=clock))


async def signed_in(billing: Billing, email: str = "ada@example.com") -> tuple[str, str]:
    """(slug, session token)."""
    slug = (await billing.sign_up(email)).account.slug
    _, token = await sessions.create_session(email, billing.context)
    return slug, token


async def refused(device_code: str, billing: Billing) -> str:
    with pytest.raises(DeviceLoginRefused) as caught:
        await device_logins.poll(device_code, billing.context)
    return caught.value.error_reason


async def test_an_approved_code_is_a_session_once_for_the_account_that_was_chosen(billing: Billing) -> None:
    slug, token = await signed_in(billing)
    begun = await device_logins.begin("tollway on ada's computer", "192.0.2.1", billing.context)
    assert await refused(begun.device_code, billing) == "AUTHORIZATION_PENDING"
    shown, code = await device_logins.look(begun.user_code.lower().replace("-", ""), token, billing.context)
    assert (shown.client_name, shown.remote_address, code) == (
        "tollway on ada's computer",
        "192.0.2.1",
        begun.user_code,
    )
    for _ in range(2):  # a double click
        await device_logins.approve(begun.user_code, token, slug, billing.context)
    granted = await device_logins.poll(begun.device_code, billing.context)
    assert granted.account.slug == slug
    principal = await principals.authorize_org(slug, Credential(session_token=granted.token), billing.context)
    assert principal.role is Role.OWNER
    assert granted.token != token
    assert await refused(begun.device_code, billing) == "INVALID_GRANT"
    entries = (await audit.list_entries(granted.account.id, 0, "", billing.context)).rows
    (approved,) = (entry for entry in entries if entry.action == "device_login.approved")
    assert approved.details == {"client": "tollway on ada's computer"}


async def test_many_polls_at_once_get_one_session(billing: Billing) -> None:
    slug, token = await signed_in(billing)
    begun = await device_logins.begin("tollway", "", billing.context)
    await device_logins.approve(begun.user_code, token, slug, billing.context)
    polls = (device_logins.poll(begun.device_code, billing.context) for _ in range(8))
    answers = await asyncio.gather(*polls, return_exceptions=True)
    assert sum(isinstance(answer, device_logins.Granted) for answer in answers) == 1
    assert {a.error_reason for a in answers if isinstance(a, DeviceLoginRefused)} == {"INVALID_GRANT"}
    assert await billing.rows("SELECT count(*) FROM login_session") == [(2,)]  # the browser's, and this one


async def test_a_crash_before_the_session_is_stored_leaves_the_approval_to_the_next_poll(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug, token = await signed_in(billing)
    begun = await device_logins.begin("tollway", "", billing.context)
    await device_logins.approve(begun.user_code, token, slug, billing.context)

    def crash(name: str) -> None:
        raise RuntimeError(name)

    with monkeypatch.context() as crashing:
        crashing.setattr(device_logins, "failpoint", crash)
        with pytest.raises(RuntimeError, match=r"billing\.device_login\.before_commit"):
            await device_logins.poll(begun.device_code, billing.context)
    assert await billing.rows("SELECT count(*) FROM login_session") == [(1,)]  # the browser's
    assert (await device_logins.poll(begun.device_code, billing.context)).account.slug == slug


async def test_a_denied_code_opens_nothing_and_cannot_be_approved_any_more(billing: Billing) -> None:
    slug, token = await signed_in(billing)
    begun = await device_logins.begin("tollway", "", billing.context)
    for _ in range(2):
        await device_logins.deny(begun.user_code, token, billing.context)
    assert await refused(begun.device_code, billing) == "ACCESS_DENIED"
    with pytest.raises(Exception, match="decided already"):
        await device_logins.approve(begun.user_code, token, slug, billing.context)


async def test_approving_and_denying_at_once_has_one_winner(billing: Billing) -> None:
    slug, token = await signed_in(billing)
    begun = await device_logins.begin("tollway", "", billing.context)
    answers = await asyncio.gather(
        device_logins.approve(begun.user_code, token, slug, billing.context),
        device_logins.deny(begun.user_code, token, billing.context),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Exception) for answer in answers) == 1
    granted = not isinstance(answers[0], Exception)
    if granted:
        await device_logins.poll(begun.device_code, billing.context)
    else:
        assert await refused(begun.device_code, billing) == "ACCESS_DENIED"


async def test_nobody_approves_for_an_account_of_anothers(billing: Billing) -> None:
    _, adas = await signed_in(billing)
    eves, _ = await signed_in(billing, "eve@example.com")
    begun = await device_logins.begin("tollway", "", billing.context)
    told = set()
    for slug in (eves, "nobody", "\0"):
        with pytest.raises(AccountNotFound) as caught:
            await device_logins.approve(begun.user_code, adas, slug, billing.context)
        told.add(caught.value.message)
    assert len(told) == 1
    assert await refused(begun.device_code, billing) == "AUTHORIZATION_PENDING"


async def test_a_code_without_a_session_is_not_shown(billing: Billing) -> None:
    begun = await device_logins.begin("tollway", "", billing.context)
    for use in (device_logins.look, device_logins.deny):
        with pytest.raises(SessionInvalid):
            await use(begun.user_code, new_key(sessions.PREFIX).secret, billing.context)


async def test_a_session_that_is_an_api_key_is_nobody_who_could_approve(billing: Billing) -> None:
    made = await billing.sign_up()
    owner = await auth.authenticate(made.api_key, billing.context)
    _, token = await key_sessions.open_key_session(owner, billing.context)
    begun = await device_logins.begin("tollway", "", billing.context)
    for refused_use in (
        device_logins.look(begun.user_code, token, billing.context),
        device_logins.approve(begun.user_code, token, made.account.slug, billing.context),
        orgs.create_org(orgs.CreateOrg(token, "Second"), billing.context),
    ):
        with pytest.raises(SessionRequired):
            await refused_use
    assert await refused(begun.device_code, billing) == "AUTHORIZATION_PENDING"


async def test_the_rows_open_nothing(billing: Billing) -> None:
    begun = await device_logins.begin("tollway", "", billing.context)
    rows = str(await billing.rows("SELECT d::text FROM device_login d"))
    for code in (begun.device_code, begun.user_code, begun.user_code.replace("-", "")):
        assert code not in rows
        assert code.encode().hex() not in rows


@pytest.mark.parametrize("device_code", ["", "dvc_", "dvc_\0", "x" * 500])
async def test_a_device_code_that_is_none_is_refused_as_an_unknown_one(billing: Billing, device_code: str) -> None:
    assert await refused(device_code, billing) == "INVALID_GRANT"
    assert await refused(new_key(device_logins.PREFIX).secret, billing) == "INVALID_GRANT"


@pytest.mark.parametrize("name", ["x" * 101, "a\nb", "a\0b", "\u202egnp.exe"])
async def test_a_programs_name_that_could_fool_a_person_is_refused(billing: Billing, name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await device_logins.begin(name, "", billing.context)
    assert caught.value.field == "client_name"


async def test_codes_expire_and_are_forgotten_later(outside_local: Billing, clock: Clock) -> None:
    context = outside_local.context
    slug, token = await signed_in(outside_local)
    begun = await device_logins.begin("tollway", "", context)
    assert begun.interval == domain.INTERVAL
    await device_logins.approve(begun.user_code, token, slug, context)
    clock.ahead = domain.LIFE
    assert await refused(begun.device_code, outside_local) == "EXPIRED_TOKEN"
    with pytest.raises(DeviceLoginNotFound):
        await device_logins.look(begun.user_code, token, context)
    clock.ahead = domain.LIFE + device_logins.KEPT + timedelta(seconds=5)
    async with context.unit_of_work() as uow:
        await uow.device_logins.forget(clock.now(), device_logins.KEPT)
        await uow.commit()
    assert await outside_local.rows("SELECT count(*) FROM device_login") == [(0,)]


async def test_one_address_begins_so_many_an_hour_and_no_other_suffers(outside_local: Billing, clock: Clock) -> None:
    def begin(address: str) -> Any:
        return device_logins.begin("tollway", address, outside_local.context)

    answers = await asyncio.gather(*(begin("192.0.2.1") for _ in range(9)), return_exceptions=True)
    assert sum(isinstance(answer, DeviceLoginRateLimited) for answer in answers) == 6
    await begin("192.0.2.2")
    clock.ahead = WINDOW + timedelta(seconds=5)
    await begin("192.0.2.1")


async def test_guesses_of_codes_run_out_however_many_are_made_at_once(outside_local: Billing, clock: Clock) -> None:
    context = outside_local.context
    _, token = await signed_in(outside_local)
    _, eves = await signed_in(outside_local, "eve@example.com")
    begun = await device_logins.begin("tollway", "", context)

    async def guess(number: int) -> str:
        try:
            await device_logins.look(domain.user_code(number), eves, context)
        except (DeviceLoginNotFound, DeviceCodeRateLimited) as error:
            return error.error_reason
        return "found"

    reasons = await asyncio.gather(*(guess(number) for number in range(MISSES + 10)))
    assert reasons.count("DEVICE_LOGIN_NOT_FOUND") == MISSES
    assert reasons.count("DEVICE_CODE_RATE_LIMITED") == 10
    with pytest.raises(DeviceCodeRateLimited):
        await device_logins.look(begun.user_code, eves, context)
    await device_logins.look(begun.user_code, token, context)
    clock.ahead = WINDOW + timedelta(seconds=5)
    assert await guess(1) == "DEVICE_LOGIN_NOT_FOUND"


async def test_a_person_makes_another_account_once_per_request(billing: Billing) -> None:
    slug, token = await signed_in(billing)
    command = orgs.CreateOrg(token, "Second", "r-1")
    answers = await asyncio.gather(*(orgs.create_org(command, billing.context) for _ in range(4)))
    assert len({answer.org.account.id for answer in answers}) == 1
    made = answers[0].org.account
    assert (made.slug, made.email) == ("second", "ada@example.com")
    listed = await principals.list_orgs(Credential(session_token=token), billing.context)
    assert {(account.slug, role) for account, role in listed} == {(slug, Role.OWNER), ("second", Role.OWNER)}
    assert len(await billing.announced("EntitlementsChanged")) == 2
    with pytest.raises(IdempotencyKeyReused):
        await orgs.create_org(replace(command, name="Third"), billing.context)


async def test_more_accounts_count_as_sign_ups_of_the_address(billing: Billing) -> None:
    _, token = await signed_in(billing)
    allowed = billing.context.settings.signup_per_email - 1  # the sign-up itself was one
    commands = [orgs.CreateOrg(token, f"Org {number}") for number in range(allowed + 3)]
    made = (orgs.create_org(command, billing.context) for command in commands)
    answers = await asyncio.gather(*made, return_exceptions=True)
    assert sum(isinstance(answer, SignUpRateLimited) for answer in answers) == 3
    with pytest.raises(SessionInvalid):
        await orgs.create_org(orgs.CreateOrg("ses_x", "Org"), billing.context)
    with pytest.raises(InvalidArgument) as caught:
        await orgs.create_org(orgs.CreateOrg(token, "a\nb"), billing.context)
    assert caught.value.field == "name"
