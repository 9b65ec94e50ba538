"""Tiers by agreement: they win, end by the clock, and say why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.billing.application import operators, plans
from services.billing.application.operators import SetOverride
from services.billing.catalog import Catalog
from services.billing.domain.principal import Actor, ActorKind
from services.billing.errors import AccountNotFound, UnknownTier
from services.kit.errors import InvalidArgument
from tests.integration.billing.conftest import Billing, running_billing

OPERATOR = Actor(ActorKind.OPERATOR, "operator")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Movable:
    """A business clock that a test moves."""

    def __init__(self) -> None:
        self.moment = NOW

    def now(self) -> datetime:
        return self.moment


@pytest.fixture
async def shop(billing_database: str) -> AsyncIterator[Billing]:
    async with running_billing(billing_database, Path("catalogs/manashiki.yaml")) as started:
        yield replace(started, context=replace(started.context, business=Movable()))


def agreed(account_id: str, tier: str = "enterprise", end: datetime | None = None) -> SetOverride:
    return SetOverride(account_id, OPERATOR, tier, "Order 4711", end)


async def tier(shop: Billing, account_id: str) -> str:
    return (await shop.state(account_id)).entitlement.tier


async def test_an_override_wins_over_the_subscription_and_its_removal_gives_it_back(shop: Billing) -> None:
    account_id = (await shop.sign_up()).account.id
    await operators.set_override(agreed(account_id), shop.context)
    assert await tier(shop, account_id) == "enterprise"
    subscription = shop.payments.pay(await shop.check_out(account_id, "paid"), "manashiki_developer_month")
    await shop.hear_of(subscription.customer_id)
    await shop.settle()
    state = (await shop.state(account_id)).entitlement
    assert (state.tier, state.status) == ("enterprise", "active")
    await operators.remove_override(account_id, OPERATOR, shop.context)
    assert await tier(shop, account_id) == "paid"
    told = [change.tier for change in await shop.announced("TierChanged")]
    assert told == ["free", "enterprise", "paid"]


async def test_an_override_ends_by_the_clock_without_an_event(shop: Billing) -> None:
    account_id = (await shop.sign_up()).account.id
    await operators.set_override(agreed(account_id, end=NOW + timedelta(days=30)), shop.context)
    clock = shop.context.business
    assert isinstance(clock, Movable)
    clock.moment = NOW + timedelta(days=30) - timedelta(seconds=1)
    assert await operators.end_overrides(shop.context) == 0
    assert await tier(shop, account_id) == "enterprise"
    clock.moment = NOW + timedelta(days=30)
    assert await operators.end_overrides(shop.context) == 1
    assert await operators.end_overrides(shop.context) == 0
    assert await tier(shop, account_id) == "free"
    assert [change.tier for change in await shop.announced("TierChanged")] == ["free", "enterprise", "free"]


async def test_setting_an_override_twice_changes_nothing_more(shop: Billing) -> None:
    account_id = (await shop.sign_up()).account.id
    for _ in range(2):
        await operators.set_override(agreed(account_id), shop.context)
    assert (await shop.state(account_id)).entitlement.version == 2


async def test_an_override_outlives_a_new_catalog(shop: Billing) -> None:
    account_id = (await shop.sign_up()).account.id
    await operators.set_override(agreed(account_id), shop.context)
    data = shop.context.catalog.model_dump(mode="json", exclude_none=True)
    data["product"]["contact"] = "mailto:new@example.com"
    changed = replace(shop.context, catalog=Catalog.model_validate(data))
    assert await plans.apply_catalog(changed) == 1
    assert await tier(shop, account_id) == "enterprise"


async def test_what_is_wrong_with_an_override_is_named(shop: Billing) -> None:
    account_id = (await shop.sign_up()).account.id
    with pytest.raises(UnknownTier):
        await operators.set_override(agreed(account_id, "platinum"), shop.context)
    with pytest.raises(AccountNotFound):
        await operators.set_override(agreed("acct_nobody"), shop.context)
    with pytest.raises(InvalidArgument) as refused:
        await operators.set_override(agreed(account_id, end=NOW), shop.context)
    assert refused.value.field == "end_time"
    with pytest.raises(InvalidArgument) as refused:
        await operators.set_override(replace(agreed(account_id), terms=""), shop.context)
    assert refused.value.field == "terms"


async def test_accounts_are_found_by_any_part_of_what_is_known_of_them(shop: Billing) -> None:
    ada = (await shop.sign_up("ada@example.com")).account
    bob = (await shop.sign_up("bob_1%@example.com")).account
    for query, ids in (
        ("ADA@", [ada.id]),
        (bob.slug, [bob.id]),
        (ada.id[5:], [ada.id]),
        ("_1%", [bob.id]),  # no wildcards
        ("", [bob.id, ada.id]),
        ("nobody", []),
    ):
        page = await operators.search(query, 10, "", shop.context)
        assert [each.account.id for each in page.rows] == ids, query


async def test_explain_names_subscription_event_override_and_catalog(shop: Billing) -> None:
    account_id = (await shop.sign_up()).account.id
    told = await operators.explain(account_id, shop.context)
    assert (told.subscription, told.override, told.event) == (None, None, None)
    subscription = shop.payments.pay(await shop.check_out(account_id, "paid"), "manashiki_developer_month")
    heard = await shop.hear_of(subscription.customer_id)
    await shop.settle()
    await operators.set_override(agreed(account_id), shop.context)
    told = await operators.explain(account_id, shop.context)
    assert told.subscription is not None
    assert told.event is not None
    assert told.override is not None
    assert (told.subscription.id, told.outcome, told.price_tier) == (subscription.id, "paid", "paid")
    assert (told.event.id, told.override.terms) == (heard.event_id, "Order 4711")
    assert told.entitlement.catalog_hash == shop.context.catalog.fingerprint("enterprise")
    assert told.because[-2:] == [
        "An override by operator puts the account on enterprise, until it is removed.",
        "So the tier is enterprise, since version 3.",
    ]
