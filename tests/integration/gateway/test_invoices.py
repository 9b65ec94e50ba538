"""An account's invoices over REST: newest first, in pages, its own only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.billing.application import sessions
from services.billing.domain.subscription import Invoice
from tests.integration.gateway.org_world import Orgs, running_orgs
from tests.integration.gateway.test_routes import assert_problem

START = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
async def orgs(billing_database: str) -> AsyncIterator[Orgs]:
    async with running_orgs(billing_database, local=False) as running:
        yield running


def invoice(number: int, status: str = "paid") -> Invoice:
    paid = status == "paid"
    return Invoice(
        id=f"in_{number}",
        customer_id="cus_1",
        subscription_id="sub_1",
        number=f"ABCD1234-{number:04}" if status != "draft" else "",
        status=status,
        currency="usd",
        amount_due=1500,
        amount_paid=1500 if paid else 0,
        attempt_count=1,
        next_attempt_time=START + timedelta(days=number + 3) if status == "open" else None,
        hosted_url=f"https://invoice.example/i/{number}",
        pdf_url=f"https://invoice.example/i/{number}/pdf",
        customer_email="ada@example.com",
        billing_reason="subscription_cycle",
        price_id="price_1",
        create_time=START + timedelta(days=number),
        paid_time=START + timedelta(days=number) if paid else None,
    )


async def bill(orgs: Orgs, account_id: str, *invoices: Invoice) -> None:
    async with orgs.billing.context.unit_of_work() as uow:
        for each in invoices:
            await uow.snapshots.save_invoice(account_id, each)
        await uow.commit()


async def test_invoices_come_newest_first_in_pages_without_drafts(orgs: Orgs) -> None:
    account = (await orgs.billing.sign_up()).account
    _, session = await sessions.create_session("ada@example.com", orgs.billing.context)
    await bill(orgs, account.id, invoice(1), invoice(3, "open"), invoice(2), invoice(4, "draft"))
    path = f"/v1/orgs/{account.slug}/invoices"
    first = (await orgs.call("GET", f"{path}?page_size=2", session)).json()
    assert [each["id"] for each in first["invoices"]] == ["in_3", "in_2"]
    assert first["invoices"][0] == {
        "id": "in_3",
        "number": "ABCD1234-0003",
        "status": "open",
        "amount_due": 1500,
        "amount_paid": 0,
        "currency": "usd",
        "hosted_invoice_url": "https://invoice.example/i/3",
        "invoice_pdf": "https://invoice.example/i/3/pdf",
        "created_at": "2026-04-04T00:00:00Z",
        "paid_at": None,
        "next_payment_attempt": "2026-04-07T00:00:00Z",
    }
    last = (await orgs.call("GET", f"{path}?page_token={first['next_page_token']}", session)).json()
    assert ([each["id"] for each in last["invoices"]], last["next_page_token"]) == (["in_1"], None)
    refused = await orgs.call("GET", f"{path}?page_token=sub_1", session)
    assert assert_problem(refused, 422, "invalid_argument")["field"] == "page_token"


async def test_invoices_are_for_the_accounts_own_people(orgs: Orgs) -> None:
    account = (await orgs.billing.sign_up()).account
    await bill(orgs, account.id, invoice(1))
    await orgs.billing.sign_up("eve@example.com")
    _, eve = await sessions.create_session("eve@example.com", orgs.billing.context)
    assert_problem(await orgs.call("GET", f"/v1/orgs/{account.slug}/invoices", eve), 404, "account_not_found")
