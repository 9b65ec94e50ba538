"""Billing's use cases over a real PostgreSQL and a fake Stripe."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.billing.application import accounts, checkout, plans, webhooks
from services.billing.application.context import Context
from services.billing.application.sync import HOLD, assign_unowned, sync
from services.billing.catalog import load_catalog
from services.billing.events import Announcer
from services.billing.later import Later
from services.billing.settings import BillingSettings
from services.billing.storage import BillingUnitOfWork
from services.billing.vault import Vault
from services.kit.clock import WallClock
from services.kit.database import create_engine
from tests.fakes.payments import FakePayments
from tests.fakes.sign_in_mail import FakeSignInMail
from tests.fakes.usage import FakeUsage
from tollway.billing.v1 import account_pb2, events_pb2

SECRET = "whsec_test"
_numbers = itertools.count(1)


def settings(dsn: str, **more: Any) -> BillingSettings:
    return BillingSettings(
        **{"local": True} | more,
        billing_dsn=dsn,
        secret_key="0" * 32,
        stripe_api_key="sk_test_fake",
        stripe_webhook_secret=SECRET,
    )


def signed(payload: bytes, *, secret: str = SECRET, age_s: float = 0) -> str:
    stamp = int(time.time() - age_s)
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def event(kind: str, thing: dict[str, Any], *, event_id: str = "", livemode: bool = False) -> bytes:
    return json.dumps(
        {
            "id": event_id or f"evt_{next(_numbers)}",
            "object": "event",
            "type": kind,
            "created": int(time.time()),
            "livemode": livemode,
            "data": {"object": thing},
        }
    ).encode()


@dataclass
class Billing:
    """A billing service without its transports, and what tests ask of it."""

    context: Context
    payments: FakePayments
    engine: AsyncEngine
    usage: FakeUsage = field(default_factory=FakeUsage)
    mail: FakeSignInMail = field(default_factory=FakeSignInMail)
    later: Later = field(default_factory=Later)

    async def sign_up(self, email: str = "ada@example.com", **values: str) -> account_pb2.CreateAccountResponse:
        return await accounts.create_account(accounts.CreateAccount(email, "Ada", **values), self.context)

    async def check_out(self, account_id: str, tier: str = "pro") -> str:
        session = await checkout.create_checkout(checkout.CreateCheckout(account_id, tier), self.context)
        return session.id

    async def hear(self, payload: bytes, signature: str | None = None) -> webhooks.Ingested:
        return await webhooks.ingest_webhook(payload, signature or signed(payload), self.context)

    async def hear_of(self, customer_id: str, kind: str = "customer.subscription.updated") -> webhooks.Ingested:
        return await self.hear(event(kind, {"id": "sub_x", "object": "subscription", "customer": customer_id}))

    async def settle(self) -> None:
        """Works on marks until none is left, as the worker does."""
        await assign_unowned(self.context)
        while True:
            async with self.context.unit_of_work() as uow:
                claims = await uow.marks.claim("claim_test", HOLD, 8)
                await uow.commit()
            if not claims:
                return
            for claimed in claims:
                await sync(claimed, "claim_test", self.context)

    async def state(self, account_id: str) -> plans.Billing:
        return await plans.get_billing(account_id, self.context)

    async def announced(self, name: str) -> list[Any]:
        """The outbox's events of one kind, in order."""
        kind = getattr(events_pb2, name)
        rows = await self.rows(f"SELECT data FROM outbox WHERE type = 'tollway.billing.v1.{name}' ORDER BY id")
        return [kind.FromString(row[0]) for row in rows]

    async def put_on(self, account_id: str, tier: str) -> None:
        """As if its subscription said so."""
        async with self.engine.begin() as connection:
            statement = text("UPDATE entitlement SET tier = :tier WHERE account_id = :account_id")
            await connection.execute(statement, {"tier": tier, "account_id": account_id})

    async def rows(self, statement: str) -> list[Any]:
        async with self.engine.connect() as connection:
            return list((await connection.execute(text(statement))).all())


@asynccontextmanager
async def running_billing(
    dsn: str, catalog_file: Path = Path("catalogs/skytale.yaml"), **more: Any
) -> AsyncIterator[Billing]:
    engine = create_engine(dsn)
    payments, usage, mail, later = FakePayments(), FakeUsage(), FakeSignInMail(), Later()
    catalog = load_catalog(catalog_file)
    chosen = settings(dsn, **more)
    context = Context(
        settings=chosen,
        catalog=catalog,
        announcer=Announcer(catalog, chosen.public_url),
        payments=payments,
        usage=usage,
        sign_in_mail=mail,
        vault=Vault(chosen.secret_key),
        business=WallClock(),
        wall=WallClock(),
        unit_of_work=lambda: BillingUnitOfWork(engine),
        marked=lambda: None,
        later=later,
    )
    try:
        await plans.push_catalog(context)
        yield Billing(context, payments, engine, usage, mail, later)
    finally:
        await later.finished()
        await engine.dispose()


@pytest.fixture
async def billing(billing_database: str) -> AsyncIterator[Billing]:
    async with running_billing(billing_database) as started:
        yield started
