"""Claims about API keys on a real PostgreSQL: gates, allowances, rotation, revocation, and who may touch whose."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.billing.application import auth, keys
from services.billing.domain.principal import Actor, ActorKind
from services.billing.errors import (
    AccountNotFound,
    ApiKeyRevoked,
    IdempotencyKeyReused,
    KeyEnded,
    KeyNotFound,
    KeyRefused,
    UnknownKeyKind,
)
from services.kit.errors import InvalidArgument
from tests.integration.billing.conftest import Billing, running_billing
from tollway.billing.v1 import key_pb2

ADA = Actor(ActorKind.OUTSIDE, "user_ada")


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
async def downloads(billing_database: str) -> AsyncIterator[Billing]:
    async with running_billing(billing_database, Path("tests/catalogs/downloads.yaml")) as started:
        yield replace(started, context=replace(started.context, business=Clock()))


def later(billing: Billing, by: timedelta) -> None:
    clock = billing.context.business
    assert isinstance(clock, Clock)
    clock.ahead += by


async def issue(
    billing: Billing, account_id: str, kind: str, name: str = "ci", request_id: str = ""
) -> key_pb2.IssueKeyResponse:
    return await keys.issue_key(keys.IssueKey(account_id, ADA, kind, name, request_id), billing.context)


async def rotate(
    billing: Billing, account_id: str, key_id: str, overlap: timedelta | None = None, request_id: str = ""
) -> key_pb2.RotateKeyResponse:
    return await keys.rotate_key(keys.RotateKey(account_id, ADA, key_id, overlap, request_id), billing.context)


async def revoke(billing: Billing, account_id: str, key_id: str) -> None:
    await keys.revoke_key(keys.RevokeKey(account_id, ADA, key_id), billing.context)


async def works(billing: Billing, api_key: str) -> bool:
    try:
        await auth.authenticate(api_key, billing.context)
    except ApiKeyRevoked:
        return False
    return True


async def test_an_issued_key_has_its_kinds_prefix_authenticates_and_is_announced_by_its_hash(
    downloads: Billing,
) -> None:
    account = (await downloads.sign_up()).account
    made = await issue(downloads, account.id, "test", "  laptop ")
    owner = await auth.authenticate(made.api_key, downloads.context)
    assert made.api_key.startswith("mk_test_")
    assert (owner.account.id, owner.key_id, owner.key_kind) == (account.id, made.key.id, "test")
    assert (made.key.name, made.key.shown[:8], made.key.HasField("revoke_time")) == ("laptop", "mk_test_", False)
    announced = (await downloads.announced("KeyIssued"))[-1]
    assert (announced.key_id, announced.kind, announced.account_id) == (made.key.id, "test", account.id)
    assert announced.key_hash == hashlib.sha256(made.api_key.encode()).digest()


async def test_a_closed_gate_refuses_with_the_catalogs_reason_and_opens_with_the_tier(downloads: Billing) -> None:
    account = (await downloads.sign_up()).account
    with pytest.raises(KeyRefused) as caught:
        await issue(downloads, account.id, "live")
    assert (caught.value.error_reason, caught.value.metadata["http_status"]) == ("LIVE_KEYS_SUSPENDED", "402")
    assert caught.value.metadata["support_contact"] == "mailto:contact@example.com"
    with pytest.raises(KeyRefused) as caught:
        await issue(downloads, account.id, "svc")
    assert caught.value.error_reason == "SERVICE_KEY_ISSUANCE_REQUIRED"  # where the catalog names none
    await downloads.put_on(account.id, "paid")
    assert (await issue(downloads, account.id, "live")).api_key.startswith("mk_live_")


async def test_a_failed_payment_stops_new_keys_and_leaves_the_old_ones(downloads: Billing) -> None:
    """manashiki: "existing mk_live_* / mk_svc_* keys keep working …, but issuing new … returns HTTP 402"."""
    account = (await downloads.sign_up()).account
    await downloads.put_on(account.id, "paid")
    made = await issue(downloads, account.id, "live")
    await downloads.put_on(account.id, "past_due")
    with pytest.raises(KeyRefused):
        await issue(downloads, account.id, "live")
    assert await works(downloads, made.api_key)
    await downloads.put_on(account.id, "free")
    assert await works(downloads, made.api_key)
    await downloads.put_on(account.id, "paid")
    await issue(downloads, account.id, "live")


async def test_the_allowance_holds_though_twenty_ask_at_once(downloads: Billing) -> None:
    account = (await downloads.sign_up()).account
    await downloads.put_on(account.id, "paid")
    answers = await asyncio.gather(
        *(issue(downloads, account.id, "svc", f"s{n}") for n in range(20)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, KeyRefused)]
    assert len(refused) == 15
    assert {error.error_reason for error in refused} == {"SERVICE_KEYS_USED_UP"}
    assert (refused[0].metadata["used"], refused[0].metadata["limit"]) == ("5", "5")
    assert await downloads.rows("SELECT count(*) FROM api_key WHERE kind = 'svc'") == [(5,)]


async def test_a_revoked_key_gives_its_place_back_and_a_rotated_one_takes_none(downloads: Billing) -> None:
    account = (await downloads.sign_up()).account  # holds one test key of two
    second = await issue(downloads, account.id, "test")
    with pytest.raises(KeyRefused):
        await issue(downloads, account.id, "test")
    rotated = await rotate(downloads, account.id, second.key.id)
    with pytest.raises(KeyRefused):
        await issue(downloads, account.id, "test")
    await revoke(downloads, account.id, rotated.key.id)
    await issue(downloads, account.id, "test")


async def test_after_a_rotation_both_keys_work_until_the_stated_end_then_the_new_one(downloads: Billing) -> None:
    account = (await downloads.sign_up()).account
    old = await issue(downloads, account.id, "test", "laptop")
    new = await rotate(downloads, account.id, old.key.id, timedelta(hours=1))
    assert (new.key.name, new.key.kind) == ("laptop", "test")
    assert (new.replaced.id, new.replaced.successor_id) == (old.key.id, new.key.id)
    assert [await works(downloads, key) for key in (old.api_key, new.api_key)] == [True, True]
    later(downloads, timedelta(minutes=59))
    assert await works(downloads, old.api_key)
    later(downloads, timedelta(minutes=1))
    assert [await works(downloads, key) for key in (old.api_key, new.api_key)] == [False, True]
    (ended,) = await downloads.announced("KeyRevoked")
    assert (ended.key_id, ended.kind, ended.account_id) == (old.key.id, "test", account.id)
    assert ended.key_hash == hashlib.sha256(old.api_key.encode()).digest()
    assert ended.revoke_time == new.replaced.revoke_time


async def test_rotating_again_and_again_leaves_two_keys_that_work(downloads: Billing) -> None:
    account = (await downloads.sign_up()).account
    secrets = []
    key_id = (made := await issue(downloads, account.id, "test")).key.id
    secrets.append(made.api_key)
    for _ in range(4):
        turned = await rotate(downloads, account.id, key_id)
        secrets.append(turned.api_key)
        key_id = turned.key.id
    assert [await works(downloads, secret) for secret in secrets] == [False, False, False, True, True]


async def test_rotating_one_key_twice_at_once_gives_one_successor(downloads: Billing) -> None:
    account = (await downloads.sign_up()).account
    old = await issue(downloads, account.id, "test")
    answers = await asyncio.gather(
        *(rotate(downloads, account.id, old.key.id) for _ in range(6)), return_exceptions=True
    )
    assert sum(isinstance(answer, KeyEnded) for answer in answers) == 5
    assert await downloads.rows(f"SELECT count(*) FROM api_key WHERE successor_id IS NULL AND id > '{old.key.id}'") == [
        (1,)
    ]


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=7, seconds=1), timedelta(milliseconds=1)])
async def test_an_overlap_out_of_bounds_is_refused_by_name(downloads: Billing, overlap: timedelta) -> None:
    account = (await downloads.sign_up()).account
    made = await issue(downloads, account.id, "test")
    with pytest.raises(InvalidArgument) as caught:
        await rotate(downloads, account.id, made.key.id, overlap)
    assert caught.value.field == "overlap"
    assert await works(downloads, made.api_key)


async def test_revoking_ends_a_key_at_once_in_an_overlap_too_and_twice_changes_nothing(downloads: Billing) -> None:
    account = (await downloads.sign_up()).account
    old = await issue(downloads, account.id, "test")
    new = await rotate(downloads, account.id, old.key.id)
    for _ in range(2):
        await revoke(downloads, account.id, old.key.id)
    assert [await works(downloads, key) for key in (old.api_key, new.api_key)] == [False, True]
    ends = await downloads.announced("KeyRevoked")
    assert [end.key_id for end in ends] == [old.key.id] * 2
    assert ends[1].revoke_time.ToDatetime() < ends[0].revoke_time.ToDatetime()
    with pytest.raises(KeyEnded):
        await rotate(downloads, account.id, old.key.id)


async def test_the_same_request_gives_the_same_key_though_it_comes_at_once_and_another_body_is_refused(
    downloads: Billing,
) -> None:
    account = (await downloads.sign_up()).account
    answers = await asyncio.gather(*(issue(downloads, account.id, "test", "ci", "r1") for _ in range(5)))
    assert len({answer.api_key for answer in answers}) == 1
    with pytest.raises(IdempotencyKeyReused):
        await issue(downloads, account.id, "test", "other", "r1")
    turns = [await rotate(downloads, account.id, answers[0].key.id, None, "r1") for _ in range(3)]
    assert len({turn.api_key for turn in turns}) == 1


async def test_one_tenants_request_ids_are_not_anothers(downloads: Billing) -> None:
    ada, bob = (await downloads.sign_up()).account, (await downloads.sign_up("bob@example.com")).account
    first = await issue(downloads, ada.id, "test", "ci", "r1")
    second = await issue(downloads, bob.id, "test", "ci", "r1")
    assert first.api_key != second.api_key
    assert (await auth.authenticate(second.api_key, downloads.context)).account.id == bob.id


async def test_another_tenants_key_is_as_unknown_as_one_that_never_was(downloads: Billing) -> None:
    ada, bob = (await downloads.sign_up()).account, (await downloads.sign_up("bob@example.com")).account
    theirs = await issue(downloads, ada.id, "test")
    said = set()
    for key_id in (theirs.key.id, "key_0", ""):
        for act in (revoke, rotate):
            with pytest.raises(KeyNotFound) as caught:
                await act(downloads, bob.id, key_id)
            said.add((caught.value.message, caught.value.error_reason, caught.value.field))
    assert len(said) == 1
    assert await works(downloads, theirs.api_key)
    listed = await keys.list_keys(bob.id, 0, "", downloads.context)
    assert theirs.key.id not in {key.id for key in listed.rows}


async def test_keys_are_listed_newest_first_in_pages_with_those_that_ended(downloads: Billing) -> None:
    account = (await downloads.sign_up()).account
    await downloads.put_on(account.id, "paid")
    made = [(await issue(downloads, account.id, "live", f"k{n}")).key.id for n in range(5)]
    await revoke(downloads, account.id, made[2])
    seen: list[str] = []
    token = ""
    while True:
        page = await keys.list_keys(account.id, 2, token, downloads.context)
        seen += [key.id for key in page.rows]
        assert len(page.rows) <= 2
        if not (token := page.next_token):
            break
    assert seen[:5] == made[::-1]
    assert len(seen) == len(set(seen)) == 6
    for token in ("x", "key_1", "aud_" + "0" * 32):
        with pytest.raises(InvalidArgument) as caught:
            await keys.list_keys(account.id, 2, token, downloads.context)
        assert caught.value.field == "page_token"


async def test_bad_input_names_its_field_and_an_unknown_account_is_unknown(downloads: Billing) -> None:
    account = (await downloads.sign_up()).account
    with pytest.raises(UnknownKeyKind) as kind:
        await issue(downloads, account.id, "root")
    with pytest.raises(InvalidArgument) as name:
        await issue(downloads, account.id, "test", "a\nb")
    assert (kind.value.field, name.value.field) == ("kind", "name")
    with pytest.raises(AccountNotFound):
        await issue(downloads, "acct_nobody", "test")
