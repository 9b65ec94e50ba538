"""Accounts for customers that subscribe at Stripe already: each gets one, and what is unclear is reported."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.billing.application import customer_push, principals
from services.billing.application.imports import ImportCustomers, Imported, import_customers
from services.billing.application.principals import Outside
from services.billing.domain.customer import Outcome, Subscriber
from services.billing.domain.principal import Actor, ActorKind, Role
from services.billing.errors import StripeUnavailable
from services.kit.errors import InvalidArgument
from tests.integration.billing.conftest import Billing

ACTOR = Actor(ActorKind.OPERATOR, "op")
NOW = datetime.now(UTC)


def subscribes(
    billing: Billing,
    name: str,
    *,
    email: str | None = None,
    account_id: str = "",
    lookup_key: str = "skytale_pro_month",
) -> str:
    """A customer that somebody made at Stripe, and its subscription; the customer's id."""
    customer_id = f"cus_{name}"
    billing.payments.customers[customer_id] = account_id
    billing.payments.people[customer_id] = (f"{name}@example.com" if email is None else email, name.title())
    billing.payments.subscribe(customer_id, billing.payments.prices.get(lookup_key, lookup_key), lookup_key)
    return customer_id


async def run(billing: Billing, **values: object) -> list[Imported]:
    """All pages."""
    found: list[Imported] = []
    token = ""
    while True:
        command = replace(ImportCustomers(ACTOR), **{"page_token": token} | values)  # type: ignore[arg-type]
        page, token = await import_customers(command, billing.context)
        found += page
        if not token:
            return found


def outcomes(found: list[Imported]) -> dict[str, str]:
    return {each.customer.id: each.verdict.reason or each.verdict.outcome.value for each in found}


async def accounts_of(billing: Billing, customer_id: str) -> list[str]:
    return [row[0] for row in await billing.rows(f"SELECT id FROM account WHERE stripe_customer_id = '{customer_id}'")]


async def test_a_subscriber_gets_an_account_that_is_read_from_stripe_and_bound_for_ever(billing: Billing) -> None:
    customer_id = subscribes(billing, "ada")
    (done,) = await run(billing)
    account_id = done.verdict.account_id
    assert (done.verdict.outcome, done.unknown_price_ids) == (Outcome.IMPORTED, ())
    await billing.settle()
    state = await billing.state(account_id)
    assert (state.entitlement.tier, state.entitlement.status) == ("pro", "active")
    assert state.stripe_customer_id == customer_id
    (row,) = await billing.rows("SELECT slug, name, email FROM account")
    assert row == ("ada", "Ada", "ada@example.com")
    assert await billing.rows("SELECT email, role FROM membership JOIN app_user ON id = user_id") == [
        ("ada@example.com", "owner")
    ]
    assert [each.tier for each in await billing.announced("TierChanged")] == ["free", "pro"]
    while await customer_push.push_due(billing.context):
        pass
    assert billing.payments.customers[customer_id] == account_id


async def test_what_was_paid_or_failed_before_is_announced_to_nobody_and_what_comes_after_is(billing: Billing) -> None:
    customer_id = subscribes(billing, "ada")
    subscription = next(iter(billing.payments.subscriptions.values()))
    billing.payments.change(subscription.id, cancel_at_period_end=True, status="past_due")
    billing.payments.bill(subscription, paid=False)
    (done,) = await run(billing)
    await billing.settle()
    for name in ("InvoicePaid", "InvoicePaymentFailed", "SubscriptionCanceled"):
        assert await billing.announced(name) == [], name
    state = await billing.state(done.verdict.account_id)
    assert state.entitlement.status == "past_due"
    invoice = billing.payments.bill(subscription, paid=True)
    billing.payments.invoices[invoice.id] = replace(invoice, create_time=NOW, paid_time=datetime.now(UTC))
    billing.payments.change(subscription.id, status="canceled", ended_at=NOW)
    await billing.hear_of(customer_id)
    await billing.settle()
    assert [each.invoice.id for each in await billing.announced("InvoicePaid")] == [invoice.id]
    assert len(await billing.announced("SubscriptionCanceled")) == 1


async def test_a_dry_run_says_the_same_and_changes_nothing(billing: Billing) -> None:
    customer_id = subscribes(billing, "ada")
    (told,) = await run(billing, dry_run=True)
    assert (told.verdict.outcome, told.verdict.account_id) == (Outcome.IMPORTED, "")
    assert await billing.rows("SELECT 1 FROM account") == []
    assert billing.payments.customers[customer_id] == ""


async def test_twice_in_pages_and_many_at_once_make_one_account_for_each(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.billing.application.imports.PAGE", 2)
    ids = {subscribes(billing, name) for name in ("ada", "bob", "cyd", "dan", "eve")}
    runs = await asyncio.gather(*(run(billing) for _ in range(3)))
    for customer_id in ids:
        assert len(await accounts_of(billing, customer_id)) == 1
        mine = [outcomes(found)[customer_id] for found in runs]
        assert sorted(mine) == ["already_ours", "already_ours", "imported"]
    assert set(outcomes(await run(billing)).values()) == {"already_ours"}
    assert len(await billing.rows("SELECT 1 FROM account")) == len(ids)


async def test_a_stop_half_way_leaves_whole_accounts_and_the_next_run_does_the_rest(billing: Billing) -> None:
    for name in ("ada", "bob", "cyd"):
        subscribes(billing, name)
    asked = billing.payments.customers_with_email
    calls = 0

    async def dying(email: str) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StripeUnavailable("cut")
        return await asked(email)

    billing.payments.customers_with_email = dying  # type: ignore[method-assign]
    with pytest.raises(StripeUnavailable):
        await run(billing)
    assert len(await billing.rows("SELECT 1 FROM account")) == 1
    assert sorted(outcomes(await run(billing)).values()) == ["already_ours", "imported", "imported"]
    await billing.settle()
    assert await billing.rows("SELECT tier, count(*) FROM entitlement GROUP BY 1") == [("pro", 3)]


async def test_what_is_unclear_is_reported_with_the_reason_and_left_alone(billing: Billing) -> None:
    taken = (await billing.sign_up("Grace@example.com")).account.id
    subscribes(billing, "grace", email="grace@Example.com")
    subscribes(billing, "nobody", email="")
    subscribes(billing, "odd", email="not an address")
    subscribes(billing, "twin1", email="twin@example.com")
    subscribes(billing, "twin2", email="twin@example.com")
    subscribes(billing, "moved", account_id="acct_elsewhere")
    found = await run(billing)
    assert outcomes(found) == {
        "cus_grace": "EMAIL_OF_ACCOUNT",
        "cus_nobody": "NO_EMAIL",
        "cus_odd": "NO_EMAIL",
        "cus_twin1": "EMAIL_OF_ANOTHER_CUSTOMER",
        "cus_twin2": "EMAIL_OF_ANOTHER_CUSTOMER",
        "cus_moved": "OF_ANOTHER_INSTALLATION",
    }
    (grace,) = (each for each in found if each.customer.id == "cus_grace")
    assert grace.verdict.account_id == taken
    assert await billing.rows("SELECT id FROM account") == [(taken,)]


async def test_an_address_that_many_customers_share_stands_for_nobody_and_costs_no_call_for_each(
    billing: Billing,
) -> None:
    mine = subscribes(billing, "one", email="shop@example.com")
    for number in range(50):
        billing.payments.customers[f"cus_walk_in_{number}"] = ""
        billing.payments.people[f"cus_walk_in_{number}"] = ("shop@example.com", "Walk-in")
    looked = 0
    look = billing.payments.subscriber

    async def counting(customer_id: str) -> Subscriber | None:
        nonlocal looked
        looked += 1
        return await look(customer_id)

    billing.payments.subscriber = counting  # type: ignore[method-assign]
    assert outcomes(await run(billing)) == {mine: "EMAIL_OF_ANOTHER_CUSTOMER"}
    assert looked == 0


async def test_an_operator_who_has_looked_decides_what_was_unclear(billing: Billing) -> None:
    mine = (await billing.sign_up("grace@example.com")).account.id
    subscribes(billing, "grace")
    subscribes(billing, "nobody", email="")
    (bound,) = await run(billing, customer_id="cus_grace", account_id=mine)
    assert (bound.verdict.outcome, bound.verdict.account_id) == (Outcome.IMPORTED, mine)
    (made,) = await run(billing, customer_id="cus_nobody", separate=True)
    assert made.verdict.outcome is Outcome.IMPORTED
    await billing.settle()
    assert {(await billing.state(each)).entitlement.tier for each in (mine, made.verdict.account_id)} == {"pro"}
    subscribes(billing, "other")
    with pytest.raises(InvalidArgument) as caught:
        await run(billing, customer_id="cus_other", account_id=mine)
    assert caught.value.field == "account_id"


async def test_our_own_customer_that_a_crash_kept_us_from_noting_gets_its_account_back(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    customer_id = subscribes(billing, "lost", account_id=account_id)
    (found,) = await run(billing)
    assert (found.verdict.outcome, found.verdict.account_id) == (Outcome.IMPORTED, account_id)
    assert await accounts_of(billing, customer_id) == [account_id]
    await billing.settle()
    # It is ours from its first invoice on, so that is told.
    assert len(await billing.announced("InvoicePaid")) == 1


async def test_a_price_that_the_catalog_does_not_know_is_reported_and_grants_nothing_by_guess(billing: Billing) -> None:
    subscribes(billing, "ada", lookup_key="legacy_plan")
    (found,) = await run(billing)
    assert (found.verdict.outcome, found.unknown_price_ids) == (Outcome.IMPORTED, ("legacy_plan",))
    await billing.settle()
    assert (await billing.state(found.verdict.account_id)).entitlement.tier == "free"


async def test_customers_of_an_identity_provider_become_the_accounts_of_their_identities(billing: Billing) -> None:
    issuer = "https://clerk.example.com"
    org = Outside(issuer, "org_known", "user_1", Role.ADMIN)
    known, _ = await principals.resolve_outside(org, billing.context)
    for name in ("known", "new"):
        customer_id = subscribes(billing, name, email="billing@example.com")  # one address for both is no matter
        billing.payments.metadata[customer_id] = {"org": f"org_{name}"}
    subscribes(billing, "stray")
    twin = subscribes(billing, "twin")
    billing.payments.metadata[twin] = {"org": "org_known"}
    asked = {"issuer": issuer, "identity_key": "org"}
    assert outcomes(await run(billing, **asked, dry_run=True))["cus_new"] == "imported"
    found = await run(billing, **asked)
    taken = [each for each in found if each.verdict.account_id == known.account.id]
    # Of two customers that name one identity, the second is left to the operator.
    assert sorted(each.verdict.reason or each.verdict.outcome.value for each in taken) == [
        "BOUND_OTHERWISE",
        "imported",
    ]
    assert outcomes(found)["cus_stray"] == "NO_IDENTITY"
    assert outcomes(found)["cus_new"] == "imported"
    (new,) = (each.verdict.account_id for each in found if each.customer.id == "cus_new")
    await billing.settle()
    seen, made = await principals.resolve_outside(Outside(issuer, "org_new", "user_2", Role.ADMIN), billing.context)
    assert (seen.account.id, made) == (new, False)
    assert (await billing.state(new)).entitlement.tier == "pro"
    assert await billing.rows("SELECT 1 FROM membership") == []
    assert set(outcomes(await run(billing, **asked)).values()) == {"already_ours", "NO_IDENTITY", "BOUND_OTHERWISE"}


async def test_one_customer_that_is_gone_or_ended_is_said_to_be_so(billing: Billing) -> None:
    customer_id = subscribes(billing, "ada")
    (subscription,) = billing.payments.subscriptions.values()
    billing.payments.change(subscription.id, status="incomplete")
    assert outcomes(await run(billing)) == {customer_id: "NO_LIVE_SUBSCRIPTION"}
    assert outcomes(await run(billing, customer_id="cus_gone")) == {"cus_gone": "NO_SUCH_CUSTOMER"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"customer_id": "in_1"}, "customer_id"),
        ({"page_token": "cus_1"}, "page_token"),
        ({"separate": True}, "customer_id"),
        ({"issuer": "https://clerk.example.com"}, "issuer"),
        ({"identity_key": "org"}, "issuer"),
        ({"account_id": "acct_1"}, "customer_id"),
        ({"customer_id": "cus_1", "account_id": "acct_1", "separate": True}, "account_id"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_field(billing: Billing, values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await run(billing, **values)
    assert caught.value.field == field
