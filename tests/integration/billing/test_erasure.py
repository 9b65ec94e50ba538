"""Changing where an account's mail goes, and erasing the people behind it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from services.billing.application import accounts, contacts, customer_push, erasure, imports, keys, reconcile, sessions
from services.billing.application.operators import SetOverride, set_override
from services.billing.domain.principal import Actor, ActorKind
from services.billing.errors import AccountErased, AccountNotFound, ApiKeyRevoked, SubscriptionRunning
from services.kit.errors import InvalidArgument
from tests.integration.billing.conftest import Billing, event

ACTOR = Actor(ActorKind.OPERATOR, "op")
WORDS = ("lovelace", "example.com")  # no hexadecimal digits alone: hashes hold any three of them


async def subscriber(billing: Billing) -> tuple[str, str, str]:
    """Account, customer and key of an account that has paid, cancelled, and left traces everywhere."""
    command = accounts.CreateAccount("Ada.Lovelace@example.com", "Lovelace")
    made = await accounts.create_account(command, billing.context)
    account_id = made.account.id
    subscription = billing.payments.pay(await billing.check_out(account_id))
    thing = {"id": "sub_x", "object": "subscription", "customer": subscription.customer_id, "note": "Ada Lovelace"}
    await billing.hear(event("customer.subscription.updated", thing))
    await billing.settle()
    await sessions.create_session("ada.lovelace@example.com", billing.context)
    await keys.issue_key(keys.IssueKey(account_id, ACTOR, "live", "Lovelace's laptop"), billing.context)
    return account_id, subscription.customer_id, made.api_key


async def end(billing: Billing, customer_id: str) -> None:
    for each in [s for s in billing.payments.subscriptions.values() if s.customer_id == customer_id]:
        billing.payments.change(each.id, status="canceled", ended_at=datetime.now(UTC))
    await billing.hear_of(customer_id, "customer.subscription.deleted")
    await billing.settle()


async def traces(billing: Billing) -> list[str]:
    """Places that still show a person; published events and sealed answers go by themselves (application.erasure)."""
    found = []
    for (table,) in await billing.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        if table in {"outbox", "idempotent_answer"}:
            continue
        for (row,) in await billing.rows(f"SELECT t::text FROM {table} t"):
            hidden = [word.encode().hex() for word in WORDS]  # as bytea shows it
            if any(word in row.lower() for word in (*WORDS, b"Lovelace".hex(), *hidden)):
                found.append(f"{table}: {row}")
    return found


async def test_after_an_erasure_no_table_shows_the_person_and_the_ledger_is_there(billing: Billing) -> None:
    account_id, customer_id, api_key = await subscriber(billing)
    await set_override(SetOverride(account_id, ACTOR, "enterprise", "Order of Ada Lovelace", None), billing.context)
    await end(billing, customer_id)
    assert await traces(billing)
    _, stripe_done = await erasure.erase_account(account_id, ACTOR, billing.context)
    assert stripe_done
    assert await traces(billing) == []
    assert customer_id not in billing.payments.customers
    assert await billing.rows("SELECT amount_paid, number, customer_id FROM invoice") == [
        (2900, "FAKE-0001", customer_id)
    ]
    assert await billing.rows("SELECT stripe_customer_id FROM account") == [(customer_id,)]
    assert await billing.rows("SELECT 1 FROM api_key WHERE revoke_time IS NULL") == []
    assert (await billing.state(account_id)).entitlement.tier == "free"
    (told,) = await billing.announced("AccountErased")
    assert told.account_id == account_id
    assert len(await billing.announced("KeyRevoked")) == 2
    from services.billing.application import auth

    with pytest.raises(ApiKeyRevoked):
        await auth.authenticate(api_key, billing.context)


async def test_erasing_twice_at_once_and_again_erases_once(billing: Billing) -> None:
    account_id, customer_id, _ = await subscriber(billing)
    await end(billing, customer_id)
    first = await asyncio.gather(*(erasure.erase_account(account_id, ACTOR, billing.context) for _ in range(3)))
    again = await erasure.erase_account(account_id, ACTOR, billing.context)
    assert len({at for at, _ in [*first, again]}) == 1
    assert len(await billing.announced("AccountErased")) == 1
    assert await billing.rows("SELECT count(*) FROM audit_log WHERE action = 'account.erased'") == [(1,)]


async def test_what_still_runs_at_stripe_is_not_erased_whatever_is_known_here(billing: Billing) -> None:
    account_id, customer_id, _ = await subscriber(billing)
    await end(billing, customer_id)
    billing.payments.subscribe(customer_id, "price_new", "skytale_pro_month")  # nobody has told us yet
    with pytest.raises(SubscriptionRunning):
        await erasure.erase_account(account_id, ACTOR, billing.context)
    assert await billing.announced("AccountErased") == []
    assert customer_id in billing.payments.customers


async def test_a_stripe_that_is_away_deletes_the_customer_when_it_is_back(billing: Billing) -> None:
    account_id, customer_id, _ = await subscriber(billing)
    await end(billing, customer_id)
    gone = billing.payments.delete_customer

    async def away(customer_id: str) -> None:
        billing.payments.down = True
        await gone(customer_id)

    billing.payments.delete_customer = away  # type: ignore[method-assign]
    _, stripe_done = await erasure.erase_account(account_id, ACTOR, billing.context)
    assert not stripe_done
    billing.payments.down, billing.payments.delete_customer = False, gone  # type: ignore[method-assign]
    async with billing.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE customer_push SET hold_until = now()")
    while await customer_push.push_due(billing.context):
        pass
    assert customer_id not in billing.payments.customers
    assert await billing.rows("SELECT 1 FROM customer_push") == []


async def test_what_stripe_tells_of_the_erased_brings_nothing_back_and_disputes_are_still_noted(
    billing: Billing,
) -> None:
    account_id, customer_id, _ = await subscriber(billing)
    await end(billing, customer_id)
    await erasure.erase_account(account_id, ACTOR, billing.context)
    billing.payments.reads = 0
    await billing.hear(event("customer.updated", {"id": customer_id, "object": "customer", "was": "Ada Lovelace"}))
    (invoice,) = billing.payments.invoices.values()
    seen = billing.payments.give_back(invoice.id, 2900, kind="dispute")
    await billing.hear(
        event("charge.dispute.created", {"id": seen.charge_id, "object": "charge", "customer": customer_id})
    )
    await billing.settle()
    report = await reconcile.reconcile(account_id, "", billing.context, dry_run=False)
    assert (report.drifts, billing.payments.reads) == ([], 0)
    assert await traces(billing) == []
    (told,) = await billing.announced("InvoiceDisputed")
    assert told.amount == 2900


async def test_somebody_who_is_in_another_account_too_stays_there(billing: Billing) -> None:
    first = (await billing.sign_up("ada.lovelace@example.com")).account.id
    second = (await billing.sign_up("ada.lovelace@example.com")).account.id
    await erasure.erase_account(first, ACTOR, billing.context)
    assert await billing.rows("SELECT account_id, email FROM membership JOIN app_user ON id = user_id") == [
        (second, "ada.lovelace@example.com")
    ]


async def test_an_unknown_account_is_not_found_and_an_erased_one_is_changed_no_more(billing: Billing) -> None:
    with pytest.raises(AccountNotFound):
        await erasure.erase_account("acct_nobody", ACTOR, billing.context)
    account_id = (await billing.sign_up()).account.id
    await erasure.erase_account(account_id, ACTOR, billing.context)
    with pytest.raises(AccountErased):
        await contacts.set_contact(account_id, "new@example.com", ACTOR, billing.context)


async def test_a_new_contact_reaches_stripe_mails_and_the_audit_log_once(billing: Billing) -> None:
    account_id, customer_id, _ = await subscriber(billing)
    for _ in range(2):
        account, done = await contacts.set_contact(account_id, "Billing@example.com", ACTOR, billing.context)
    assert (account.contact_email, done) == ("Billing@example.com", True)
    assert billing.payments.people[customer_id][0] == "Billing@example.com"
    assert await billing.rows("SELECT actor_id, details::text FROM audit_log WHERE action = 'contact.changed'") == [
        ("op", "{}")
    ]
    (subscription,) = billing.payments.subscriptions.values()
    billing.payments.bill(subscription, paid=True)
    await billing.hear_of(customer_id)
    await billing.settle()
    told = (await billing.announced("InvoicePaid"))[-1].invoice
    assert (told.contact_email, told.customer_email) == ("Billing@example.com", "ada@example.com")


async def test_a_contact_changed_while_stripe_is_away_is_told_to_it_later_and_the_last_one_stands(
    billing: Billing,
) -> None:
    account_id, customer_id, _ = await subscriber(billing)
    billing.payments.down = True
    for name in ("one", "two"):
        _, done = await contacts.set_contact(account_id, f"{name}@example.com", ACTOR, billing.context)
        assert not done
    billing.payments.down = False
    async with billing.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE customer_push SET hold_until = now()")
    while await customer_push.push_due(billing.context):
        pass
    assert billing.payments.people[customer_id][0] == "two@example.com"


async def test_no_address_is_refused_by_field(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    with pytest.raises(InvalidArgument) as caught:
        await contacts.set_contact(account_id, "nobody", ACTOR, billing.context)
    assert caught.value.field == "email"


async def test_signing_in_proves_the_contact_of_ones_own_accounts(billing: Billing) -> None:
    mine = (await billing.sign_up("ada@example.com")).account.id
    other = (await billing.sign_up("bob@example.com")).account.id
    await sessions.create_session("ada@example.com", billing.context)
    async with billing.context.unit_of_work() as uow:
        assert (await uow.accounts.get(mine)).contact_email == "ada@example.com"
        assert (await uow.accounts.get(other)).contact_email == ""


async def test_an_erased_customer_is_not_imported_again(billing: Billing) -> None:
    account_id, customer_id, _ = await subscriber(billing)
    await end(billing, customer_id)
    await erasure.erase_account(account_id, ACTOR, billing.context)
    done, _ = await imports.import_customers(imports.ImportCustomers(ACTOR, customer_id=customer_id), billing.context)
    assert done[0].verdict.reason == "NO_SUCH_CUSTOMER"
