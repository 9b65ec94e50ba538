"""Claims about coming in, on a real PostgreSQL: links, sessions, limits, and what an answer does not tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.billing.application import key_sessions, keys, principals, sessions, sign_in
from services.billing.application.principals import Credential
from services.billing.application.sign_in import RequestLink
from services.billing.domain.api_key import new_key
from services.billing.domain.principal import Actor, ActorKind, Role
from services.billing.errors import (
    AccountNotFound,
    ApiKeyUnknown,
    SessionInvalid,
    SignInLinkInvalid,
    SignInLinkOtherBrowser,
    SignInRateLimited,
)
from services.kit.errors import InvalidArgument
from tests.integration.billing.conftest import Billing, running_billing
from tests.integration.billing.test_identity import Clock

BROWSER, OTHER = "b" * 32, "o" * 32
ADDRESS = "198.51.100.7"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def shop(billing_database: str, clock: Clock) -> AsyncIterator[Billing]:
    """Not in local mode: a key is no session, and every address is limited."""
    outside = {"local": False, "rpc_token": "t" * 32, "sign_in_per_email": 3, "sign_in_per_address": 5}
    async with running_billing(billing_database, Path("tests/catalogs/downloads.yaml"), **outside) as started:
        yield replace(started, context=replace(started.context, business=clock, wall=clock))


async def link(shop: Billing, email: str = "ada@example.com", browser: str = BROWSER) -> str:
    """The token of a link that was asked for and mailed."""
    await sign_in.request_link(RequestLink(email, browser), shop.context)
    await shop.later.finished()
    return shop.mail.token


async def test_a_link_lets_in_the_browser_that_asked_and_proves_the_address(shop: Billing) -> None:
    account = (await shop.sign_up("Ada@Example.com")).account
    token = await link(shop, "ADA@example.com")
    (mailed,) = shop.mail.links
    assert mailed.recipient == "ada@example.com"
    assert mailed.url.startswith(f"{shop.context.settings.public_url}/dash/sign-in/link?token=sil_")
    assert (await sign_in.check_link(token, BROWSER, shop.context)).email == "ada@example.com"
    _, opened = await sign_in.sign_in_with_link(token, BROWSER, shop.context)
    session = await sessions.resolve_session(opened, shop.context)
    assert session.user.verify_time is not None
    listed = await principals.list_orgs(Credential(session_token=opened), shop.context)
    assert [(found.slug, role) for found, role in listed] == [(account.slug, Role.OWNER)]


async def test_a_link_lets_in_once_even_when_it_is_followed_ten_times_at_once(shop: Billing) -> None:
    await shop.sign_up()
    token = await link(shop)
    tries = (sign_in.sign_in_with_link(token, BROWSER, shop.context) for _ in range(10))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, SignInLinkInvalid) for outcome in outcomes) == 9
    with pytest.raises(SignInLinkInvalid):
        await sign_in.check_link(token, BROWSER, shop.context)


async def test_a_sign_in_that_is_cut_off_before_its_commit_leaves_the_link_as_it_was(
    shop: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.sign_up()
    token = await link(shop)

    def cut(name: str) -> None:
        raise ConnectionError(name)

    with monkeypatch.context() as patched:
        patched.setattr(sign_in, "failpoint", cut)
        with pytest.raises(ConnectionError):
            await sign_in.sign_in_with_link(token, BROWSER, shop.context)
    assert await shop.rows("SELECT count(*) FROM login_session") == [(0,)]
    await sign_in.sign_in_with_link(token, BROWSER, shop.context)


async def test_another_browser_is_told_so_and_does_not_use_the_link_up(shop: Billing) -> None:
    await shop.sign_up()
    token = await link(shop)
    for browser in (OTHER, "", "x", "b" * 31 + "\x00"):
        with pytest.raises(SignInLinkOtherBrowser):
            await sign_in.sign_in_with_link(token, browser, shop.context)
    await sign_in.sign_in_with_link(token, BROWSER, shop.context)


async def test_a_link_is_over_after_fifteen_minutes(shop: Billing, clock: Clock) -> None:
    await shop.sign_up()
    token = await link(shop)
    clock.ahead = timedelta(minutes=14)
    await sign_in.check_link(token, BROWSER, shop.context)
    clock.ahead = timedelta(minutes=15, seconds=1)
    with pytest.raises(SignInLinkInvalid):
        await sign_in.sign_in_with_link(token, BROWSER, shop.context)


@pytest.mark.parametrize("token", ["", "sil_", "sil_" + "0" * 33, "ses_x", "\x00", "é" * 40, "a" * 5000])
async def test_what_is_no_link_reads_like_one_that_is_over(shop: Billing, token: str) -> None:
    with pytest.raises(SignInLinkInvalid):
        await sign_in.check_link(token, BROWSER, shop.context)


async def test_for_an_address_that_nobody_has_the_answer_is_the_same_and_nothing_is_mailed(shop: Billing) -> None:
    await shop.sign_up()
    known = await sign_in.request_link(RequestLink("ada@example.com", BROWSER), shop.context)
    before = await shop.rows("SELECT count(*) FROM sign_in_attempt")
    unknown = await sign_in.request_link(RequestLink("eve@example.com", BROWSER), shop.context)
    assert abs(unknown - known) < timedelta(minutes=1)
    assert await shop.rows("SELECT count(*) FROM sign_in_attempt") == [(before[0][0] + 1,)]
    await shop.later.finished()
    assert [mailed.recipient for mailed in shop.mail.links] == ["ada@example.com"]
    assert await shop.rows("SELECT count(*) FROM sign_in_link") == [(1,)]


async def test_tokens_lie_in_no_row(shop: Billing) -> None:
    made = await shop.sign_up()
    token = await link(shop)
    _, opened = await sign_in.sign_in_with_link(token, BROWSER, shop.context)
    _, by_key = await sign_in.sign_in_with_key(made.api_key, ADDRESS, shop.context)
    tables = ("sign_in_link", "sign_in_attempt", "login_session", "key_session", "outbox")
    rows = [row for table in tables for row in await shop.rows(f"SELECT {table}::text FROM {table}")]
    text = str(rows)
    assert len(rows) >= len(tables)
    for secret in (token, opened, by_key, made.api_key, BROWSER):
        assert secret not in text


async def test_links_are_limited_for_an_address_of_mail_and_for_one_of_the_network(shop: Billing, clock: Clock) -> None:
    for _ in range(3):
        await sign_in.request_link(RequestLink("ada@example.com", BROWSER), shop.context)
    with pytest.raises(SignInRateLimited) as raised:
        await sign_in.request_link(RequestLink("Ada@example.com", BROWSER), shop.context)
    assert raised.value.retry_after == timedelta(hours=1)
    for number in range(5):
        await sign_in.request_link(RequestLink(f"{number}@example.com", BROWSER, ADDRESS), shop.context)
    with pytest.raises(SignInRateLimited):
        await sign_in.request_link(RequestLink("6@example.com", BROWSER, ADDRESS), shop.context)
    with pytest.raises(SignInRateLimited):
        await sign_in.sign_in_with_key("mk_test_x", ADDRESS, shop.context)
    clock.ahead = timedelta(hours=1, seconds=1)
    await sign_in.request_link(RequestLink("ada@example.com", BROWSER, ADDRESS), shop.context)


async def test_of_tries_at_once_no_more_pass_than_the_limit_allows(shop: Billing) -> None:
    tries = (sign_in.request_link(RequestLink("ada@example.com", BROWSER), shop.context) for _ in range(9))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, SignInRateLimited) for outcome in outcomes) == 6


async def test_a_mail_server_that_is_away_for_a_moment_is_tried_again(
    shop: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "_PAUSES_S", (0.0, 0.0))
    await shop.sign_up()
    shop.mail.away = 2
    assert (await link(shop)).startswith("sil_")


@pytest.mark.parametrize(
    ("email", "browser", "field"),
    [
        ("nobody", BROWSER, "email"),
        ("a@b.c\r\nBcc: e@b.c", BROWSER, "email"),
        ("a@example.com", "short", "browser_token"),
    ],
)
async def test_bad_input_is_refused_by_name(shop: Billing, email: str, browser: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await sign_in.request_link(RequestLink(email, browser), shop.context)
    assert raised.value.field == field


async def test_a_session_by_key_is_the_key_and_no_more(shop: Billing) -> None:
    made = await shop.sign_up()
    other = (await shop.sign_up("eve@example.com")).account
    _, token = await sign_in.sign_in_with_key(made.api_key, ADDRESS, shop.context)
    credential = Credential(session_token=token)
    principal = await principals.authorize_org(made.account.slug, credential, shop.context)
    assert (principal.role, principal.key_kind, principal.actor.kind) == (None, "test", ActorKind.KEY)
    assert [found.id for found, _ in await principals.list_orgs(credential, shop.context)] == [made.account.id]
    with pytest.raises(AccountNotFound):
        await principals.authorize_org(other.slug, credential, shop.context)
    with pytest.raises(SessionInvalid):  # whoever needs a person does not get one
        await sessions.resolve_session(token, shop.context)


async def test_a_session_by_key_ends_with_its_key_with_its_time_and_when_it_is_ended(
    shop: Billing, clock: Clock
) -> None:
    made = await shop.sign_up()
    owner = Actor(ActorKind.SYSTEM, "test")
    _, ended = await sign_in.sign_in_with_key(made.api_key, "", shop.context)
    _, late = await sign_in.sign_in_with_key(made.api_key, "", shop.context)
    await key_sessions.key_of(ended, shop.context)
    await sessions.end_session(ended, shop.context)
    with pytest.raises(SessionInvalid):
        await key_sessions.key_of(ended, shop.context)
    clock.ahead = sessions.LIFE
    with pytest.raises(SessionInvalid):
        await key_sessions.key_of(late, shop.context)
    clock.ahead = timedelta(0)
    (key,) = (await keys.list_keys(made.account.id, 0, "", shop.context)).rows
    await keys.revoke_key(keys.RevokeKey(made.account.id, owner, key.id), shop.context)
    with pytest.raises(SessionInvalid):
        await key_sessions.key_of(late, shop.context)


async def test_a_key_that_nobody_has_opens_nothing(shop: Billing) -> None:
    made = await shop.sign_up()
    with pytest.raises(ApiKeyUnknown):
        await sign_in.sign_in_with_key(new_key("mk_test_").secret, ADDRESS, shop.context)
    assert made.api_key
    assert await shop.rows("SELECT count(*) FROM key_session") == [(0,)]
