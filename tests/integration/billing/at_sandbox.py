"""Billing's use cases over a real PostgreSQL, the official library and the Stripe sandbox."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from services.billing.application import accounts, checkout, plans, webhooks
from services.billing.application.context import Context
from services.billing.application.sync import HOLD, assign_unowned, sync
from services.billing.catalog import load_catalog
from services.billing.events import Announcer
from services.billing.later import Later
from services.billing.ports import Session
from services.billing.storage import BillingUnitOfWork
from services.billing.stripe import StripePayments
from services.billing.token_bucket import PEOPLE
from services.billing.vault import Vault
from services.kit.clock import BusinessClock, WallClock
from services.kit.database import create_engine
from tests.fakes.sign_in_mail import FakeSignInMail
from tests.fakes.usage import FakeUsage
from tests.infra.processes import Sandbox
from tests.integration.billing.conftest import event, settings, signed

T = TypeVar("T")
Json = dict[str, Any]


class CountedPayments(StripePayments):
    """Notes each call that is made, by name."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.made: list[str] = []

    async def _call(
        self, name: str, call: Callable[[], Awaitable[T]], priority: int = PEOPLE, *, stored_failure: bool = False
    ) -> T:
        self.made.append(name)
        return await super()._call(name, call, priority, stored_failure=stored_failure)


@dataclass
class Shop:
    """One replica of billing without its transports, and Stripe's side."""

    context: Context
    payments: CountedPayments
    stripe: httpx.AsyncClient
    usage: FakeUsage = field(default_factory=FakeUsage)

    async def sign_up(self, email: str) -> str:
        made = await accounts.create_account(accounts.CreateAccount(email, "Ada"), self.context)
        return str(made.account.id)

    async def check_out(self, account_id: str, tier: str, success_url: str = "") -> Session:
        command = checkout.CreateCheckout(account_id, tier, success_url=success_url)
        return await checkout.create_checkout(command, self.context)

    async def pay(self, session: Session, token: str = "tok_visa") -> None:
        """As the official command-line tool pays."""
        method = (await self.post("payment_methods", type="card", **{"card[token]": token}))["id"]
        total = (await self.get(f"checkout/sessions/{session.id}"))["amount_total"]
        await self.post(f"payment_pages/{session.id}/confirm", payment_method=method, expected_amount=total)

    async def subscriber(self, email: str, tier: str) -> str:
        """An account that has paid for the tier, and of which billing knows it."""
        account_id = await self.sign_up(email)
        await self.pay(await self.check_out(account_id, tier))
        await self.hear_of(account_id)
        await self.settle()
        return account_id

    async def post(self, path: str, **form: Any) -> Json:
        return self._taken(await self.stripe.post(f"/v1/{path}", data=form))

    async def get(self, path: str, **query: Any) -> Json:
        return self._taken(await self.stripe.get(f"/v1/{path}", params=query))

    async def faults(self, *faults: Json) -> None:
        (await self.stripe.put("/_sandbox/faults", json={"api_errors": list(faults)})).raise_for_status()

    @staticmethod
    def _taken(answer: httpx.Response) -> Json:
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def hear_of(self, account_id: str) -> None:
        thing = {"id": "sub_x", "object": "subscription", "customer": await self.customer(account_id)}
        await self.hear(event("customer.subscription.updated", thing))

    async def hear(self, payload: bytes | Json) -> None:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await webhooks.ingest_webhook(raw, signed(raw), self.context)

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

    async def delays_are_over(self) -> None:
        """As some seconds after a failure: what failed is tried again, what was claimed is free."""
        async with self.context.unit_of_work() as uow:
            await uow.connection.exec_driver_sql("UPDATE billing_sync SET next_time = now(), claim_until = NULL")
            await uow.commit()

    async def state(self, account_id: str) -> plans.Billing:
        return await plans.get_billing(account_id, self.context)

    async def customer(self, account_id: str) -> str:
        """The id that billing has noted."""
        async with self.context.unit_of_work() as uow:
            return (await uow.accounts.get(account_id)).stripe_customer_id or ""

    async def subscriptions(self, account_id: str) -> list[Json]:
        """As Stripe has them."""
        page = await self.get("subscriptions", customer=await self.customer(account_id), status="all")
        return list(page["data"])


@asynccontextmanager
async def open_shop(
    dsn: str, sandbox: Sandbox, catalog_file: str, *, timeout_s: float = 10.0, patience_s: float = 60.0
) -> AsyncIterator[Shop]:
    """Pushes nothing: `plans.push_catalog` does, once for all replicas."""
    engine = create_engine(dsn)
    catalog = load_catalog(Path("catalogs") / catalog_file)
    chosen = settings(dsn)
    payments = CountedPayments(sandbox.api_key, base=sandbox.url, rate=1000, timeout_s=timeout_s, patience_s=patience_s)
    usage, later = FakeUsage(), Later()
    context = Context(
        settings=chosen,
        catalog=catalog,
        announcer=Announcer(catalog, chosen.public_url),
        payments=payments,
        usage=usage,
        sign_in_mail=FakeSignInMail(),
        vault=Vault(chosen.secret_key),
        business=BusinessClock(sandbox.folder / "clock-offset"),
        wall=WallClock(),
        unit_of_work=lambda: BillingUnitOfWork(engine),
        marked=lambda: None,
        later=later,
    )
    async with httpx.AsyncClient(base_url=sandbox.url, auth=(sandbox.api_key, ""), timeout=30) as stripe:
        try:
            yield Shop(context, payments, stripe, usage)
        finally:
            await later.finished()
            await payments.close()
            await engine.dispose()
