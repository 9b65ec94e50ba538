"""Claims about signing up, API keys and JWTs, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace

import jwt
import pytest

from services.billing.application import accounts, auth
from services.billing.domain.api_key import new_key
from services.billing.errors import (
    AccountNotFound,
    ApiKeyMalformed,
    ApiKeyRevoked,
    ApiKeyUnknown,
    IdempotencyKeyReused,
    SignUpRateLimited,
)
from services.billing.storage import BillingUnitOfWork
from services.kit.errors import InvalidArgument
from tests.integration.billing.conftest import Billing


async def test_a_sign_up_gives_a_free_account_and_a_key_that_authenticates(billing: Billing) -> None:
    created = await billing.sign_up()
    owner = await auth.authenticate(created.api_key, billing.context)
    assert created.api_key.startswith("sk_live_")
    assert (owner.account.id, owner.tier, owner.version) == (created.account.id, "free", 1)


async def test_a_sign_up_announces_its_entitlements_tier_and_key_without_the_key(billing: Billing) -> None:
    created = await billing.sign_up()
    (changed,) = await billing.announced("EntitlementsChanged")
    (tier,) = await billing.announced("TierChanged")
    (key,) = await billing.announced("KeyIssued")
    assert (changed.entitlements.version, changed.entitlements.tier) == (1, "free")
    assert [(limit.name, limit.limit) for limit in changed.entitlements.limits] == [("messages_per_month", 100_000)]
    assert (tier.previous_tier, tier.tier, tier.version) == ("", "free", 1)
    assert key.key_hash == hashlib.sha256(created.api_key.encode()).digest()


async def test_no_table_holds_an_api_key(billing: Billing) -> None:
    created = await billing.sign_up(request_id="once")
    dumps = [
        str(await billing.rows(f"SELECT t::text FROM {table} t"))
        for (table,) in await billing.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    assert created.api_key not in "".join(dumps)
    assert created.api_key.encode().hex() not in "".join(dumps)


async def test_the_same_request_twice_makes_one_account_and_gives_the_same_key(billing: Billing) -> None:
    first = await billing.sign_up(request_id="r1")
    assert await billing.sign_up(request_id="r1") == first
    assert await billing.rows("SELECT count(*) FROM account") == [(1,)]


async def test_the_same_request_at_once_makes_one_account(billing: Billing) -> None:
    answers = await asyncio.gather(*(billing.sign_up(request_id="r1") for _ in range(8)))
    assert len({answer.api_key for answer in answers}) == 1
    assert await billing.rows("SELECT count(*) FROM account") == [(1,)]


async def test_a_request_id_with_other_fields_is_refused(billing: Billing) -> None:
    await billing.sign_up(request_id="r1")
    with pytest.raises(IdempotencyKeyReused):
        await billing.sign_up("eve@example.com", request_id="r1")


async def test_accounts_of_one_name_get_slugs_of_their_own(billing: Billing) -> None:
    answers = await asyncio.gather(*(billing.sign_up(f"a{i}@example.com") for i in range(5)))
    assert len({answer.account.slug for answer in answers}) == 5
    assert "ada" in {answer.account.slug for answer in answers}


async def test_one_email_signs_up_ten_times_an_hour_at_most_even_at_once(billing: Billing) -> None:
    answers = await asyncio.gather(*(billing.sign_up() for _ in range(14)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, SignUpRateLimited)]
    assert len(refused) == 4
    assert refused[0].retry_after is not None


async def test_one_address_is_limited_whatever_the_email(billing: Billing) -> None:
    for number in range(30):
        await billing.sign_up(f"a{number}@example.com", remote_address="203.0.113.7")
    with pytest.raises(SignUpRateLimited):
        await billing.sign_up("b@example.com", remote_address="203.0.113.7")
    await billing.sign_up("b@example.com", remote_address="203.0.113.8")


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "@example.com", "a b@example.com", "a@b\r\nBcc: c@d.e", "a" * 300]
)
async def test_a_bad_email_is_refused_by_field(billing: Billing, email: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await billing.sign_up(email)
    assert caught.value.field == "email"


async def test_unknown_and_revoked_keys_are_told_apart(billing: Billing) -> None:
    created = await billing.sign_up()
    with pytest.raises(ApiKeyUnknown):
        await auth.authenticate(new_key("sk_live_").secret, billing.context)
    async with billing.context.unit_of_work() as uow:
        await uow.connection.exec_driver_sql("UPDATE api_key SET revoke_time = now()")
        await uow.commit()
    with pytest.raises(ApiKeyRevoked):
        await auth.authenticate(created.api_key, billing.context)


async def test_a_malformed_key_is_refused_without_a_database(billing: Billing) -> None:
    def no_database() -> BillingUnitOfWork:
        raise AssertionError("the database was asked")

    with pytest.raises(ApiKeyMalformed):
        await auth.authenticate("sk_live_x", replace(billing.context, unit_of_work=no_database))


async def test_a_token_carries_the_tier_and_verifies_with_the_published_keys(billing: Billing) -> None:
    created = await billing.sign_up()
    keys = auth.SigningKeys(billing.context)
    await keys.rotate()
    token = await auth.exchange_token(created.api_key, billing.context, keys)
    (jwk,) = json.loads(await keys.jwks())["keys"]
    claims = jwt.decode(token, jwt.PyJWK(jwk).key, algorithms=["EdDSA"], issuer="http://127.0.0.1:8080")
    assert (claims["sub"], claims["tier"]) == (created.account.id, "free")
    assert claims["exp"] - claims["iat"] <= 3600
    assert "d" not in jwk


async def test_replicas_make_one_signing_key_between_them(billing: Billing) -> None:
    replicas = [auth.SigningKeys(billing.context) for _ in range(4)]
    await asyncio.gather(*(replica.rotate() for replica in replicas))
    assert len({await replica.jwks() for replica in replicas}) == 1
    assert await billing.rows("SELECT count(*) FROM signing_key") == [(1,)]


async def test_whom_to_write_to_comes_with_the_brand_and_the_tiers_limits(billing: Billing) -> None:
    created = await billing.sign_up("ada@example.com")
    found = await accounts.get_recipient(created.account.id, billing.context)
    assert (found.account_id, found.account_name, found.tier_name) == (created.account.id, "Ada", "Free")
    assert (found.contact_email, found.customer_email) == ("", "ada@example.com")
    assert (found.brand.name, found.brand.color) == ("Skytale", "#0f766e")
    assert found.brand.billing_url.endswith(f"/dash/{created.account.slug}/billing")
    assert [(limit.name, limit.limit) for limit in found.limits] == [("messages_per_month", 100_000)]
    with pytest.raises(AccountNotFound):
        await accounts.get_recipient("acct_nobody", billing.context)
