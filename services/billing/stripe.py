"""Stripe, through its official library. Paths and traps: API version 2026-10-28.endive, stripe-python 16.

Timeouts and retries are set here. A POST that must not happen twice carries a key of ours: the library's own dies with
the process. A token bucket keeps background reads from starving people's checkouts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import httpx
import stripe
import structlog

from services.billing.domain.subscription import Invoice
from services.billing.errors import StripeUnavailable
from services.billing.ports import FromStripe, NewSession, Session, StripeRetryable
from services.billing.stripe_catalog import CatalogCalls
from services.billing.stripe_changes import ChangeCalls
from services.billing.stripe_customers import CustomerCalls
from services.billing.stripe_metering import MeterCalls
from services.billing.stripe_objects import ACCOUNT_KEY, invoice_of, required, subscription_of
from services.billing.stripe_refunds import RefundCalls
from services.billing.token_bucket import BACKGROUND, PEOPLE, TokenBucket
from services.kit import telemetry

__all__ = ["ACCOUNT_KEY", "StripePayments", "invoice_of", "subscription_of"]

_MOST_CUSTOMER_PAGES = 10  # newest first: an attempt that failed is not long ago

log = structlog.get_logger(__name__)
T = TypeVar("T")


def _session_of(data: stripe.checkout.Session) -> Session:
    return Session(
        id=data.id,
        url=data.url or "",
        status=data.status or "expired",
        expire_time=required(data.expires_at),
    )


class StripePayments(CatalogCalls, RefundCalls, MeterCalls, ChangeCalls, CustomerCalls):
    """The `Payments` port over Stripe's API. `base` is set only where a stand-in takes Stripe's place.

    One try takes `timeout_s` at most, a call with its retries `patience_s`: less than a caller of ours waits, who is to
    hear that Stripe does not answer.
    """

    def __init__(
        self, api_key: str, *, base: str = "", rate: float = 20.0, timeout_s: float = 10.0, patience_s: float = 15.0
    ) -> None:
        self._http = stripe.HTTPXClient(timeout=httpx.Timeout(timeout_s, connect=min(2.0, timeout_s)))
        self._patience_s = patience_s
        addresses: Any = {"base_addresses": {"api": base}} if base else {}
        self._client = stripe.StripeClient(api_key, http_client=self._http, max_network_retries=2, **addresses)
        self._bucket = TokenBucket(rate)

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def create_customer(self, account_id: str, email: str, name: str, attempt: int = 1) -> str:
        customers = self._client.v1.customers
        if attempt > 1 and (made := await self._customer_of(account_id, email)):
            return made
        params: Any = {"name": name, "metadata": {ACCOUNT_KEY: account_id}}
        if email:  # an account of an outside identity has none: Checkout asks the person for it
            params["email"] = email
        key = f"{account_id}:customer" + (f":{attempt}" if attempt > 1 else "")
        customer = await self._call(
            "customers.create",
            lambda: customers.create_async(params, {"idempotency_key": key}),
            stored_failure=True,
        )
        return customer.id

    async def _customer_of(self, account_id: str, email: str) -> str:
        """What an earlier attempt may have made in spite of its failure; empty if there is nothing."""
        query: Any = {"limit": 100} | ({"email": email} if email else {})
        customers = self._client.v1.customers
        page = await self._call("customers.list", lambda: customers.list_async(query))
        for looked in range(_MOST_CUSTOMER_PAGES):
            for each in page.data:
                if (each.to_dict(for_json=True).get("metadata") or {}).get(ACCOUNT_KEY) == account_id:
                    return each.id
            if not page.has_more or looked + 1 == _MOST_CUSTOMER_PAGES:
                break
            page = await self._call("customers.list", page.next_page_async)
        return ""

    async def create_session(self, new: NewSession) -> Session:
        metadata = {ACCOUNT_KEY: new.account_id}
        metered = [{"price": price_id} for price_id in new.metered_price_ids]
        params: Any = {
            "mode": "subscription",
            "customer": new.customer_id,
            "client_reference_id": new.account_id,
            "line_items": [{"price": new.price_id, "quantity": 1}, *metered],
            "success_url": new.success_url,
            "cancel_url": new.cancel_url,
            "allow_promotion_codes": new.promotion_codes,
            "metadata": metadata,
            "subscription_data": {"metadata": metadata},
        }
        if new.trial_days:
            params["subscription_data"]["trial_period_days"] = new.trial_days
        if new.automatic_tax:
            params["automatic_tax"] = {"enabled": True}
            params["customer_update"] = {"address": "auto"}
        session = await self._call(
            "checkout.sessions.create",
            lambda: self._client.v1.checkout.sessions.create_async(params, {"idempotency_key": new.key}),
            stored_failure=True,
        )
        return _session_of(session)

    async def session(self, session_id: str) -> Session:
        session = await self._call(
            "checkout.sessions.retrieve", lambda: self._client.v1.checkout.sessions.retrieve_async(session_id)
        )
        return _session_of(session)

    async def expire_session(self, session_id: str) -> Session:
        try:
            session = await self._call(
                "checkout.sessions.expire", lambda: self._client.v1.checkout.sessions.expire_async(session_id)
            )
        except stripe.InvalidRequestError:  # no longer open: completed or expired meanwhile
            return await self.session(session_id)
        return _session_of(session)

    async def create_portal_session(self, customer_id: str, return_url: str, configuration: str) -> str:
        params: Any = {"customer": customer_id, "return_url": return_url}
        if configuration:
            params["configuration"] = configuration
        session = await self._call(
            "billing_portal.sessions.create", lambda: self._client.v1.billing_portal.sessions.create_async(params)
        )
        return session.url

    async def read(self, customer_id: str, invoice_ids: list[str], *, want_last_paid: bool) -> FromStripe:
        params: Any = {"customer": customer_id, "status": "all", "limit": 100, "expand": ["data.latest_invoice"]}
        listed = await self._all("subscriptions.list", lambda: self._client.v1.subscriptions.list_async(params))
        invoices = {
            each["latest_invoice"]["id"]: invoice_of(each["latest_invoice"])
            for each in listed
            if isinstance(each.get("latest_invoice"), dict)
        }
        missing = [each for each in invoice_ids if each not in invoices]
        for read in await asyncio.gather(*(self._invoice(each) for each in missing)):
            if read is not None and read.customer_id == customer_id:
                invoices[read.id] = read
        last_paid = await self._last_paid_price(customer_id) if want_last_paid else ""
        return FromStripe([subscription_of(each) for each in listed], list(invoices.values()), last_paid)

    async def _invoice(self, invoice_id: str) -> Invoice | None:
        try:
            found = await self._call(
                "invoices.retrieve", lambda: self._client.v1.invoices.retrieve_async(invoice_id), BACKGROUND
            )
        except stripe.InvalidRequestError as error:
            if error.http_status == 404:  # a draft that was deleted
                return None
            raise
        return invoice_of(found.to_dict(for_json=True))

    async def _last_paid_price(self, customer_id: str) -> str:
        params: Any = {"customer": customer_id, "status": "paid", "limit": 1}
        page = await self._call("invoices.list", lambda: self._client.v1.invoices.list_async(params), BACKGROUND)
        return next((invoice_of(each.to_dict(for_json=True)).price_id for each in page.data), "")

    async def list_invoices(self, customer_id: str) -> list[Invoice]:
        params: Any = {"customer": customer_id, "limit": 100}
        listed = await self._all("invoices.list", lambda: self._client.v1.invoices.list_async(params))
        return [invoice_of(each) for each in listed if each["status"] != "draft"]

    async def events_since(self, since: datetime, types: Collection[str]) -> list[bytes]:
        names = sorted(types)
        found: list[bytes] = []
        for begin in range(0, len(names), 20):  # Stripe takes 20 types at a time
            found += await self._events(names[begin : begin + 20], since)
        return found

    async def _events(self, types: list[str], since: datetime) -> list[bytes]:
        params: Any = {"types": types, "created": {"gte": int(since.timestamp())}, "limit": 100}
        listed = await self._all("events.list", lambda: self._client.v1.events.list_async(params))
        return [json.dumps(each).encode() for each in listed]

    async def account_of_customer(self, customer_id: str) -> str:
        try:
            customer = await self._call(
                "customers.retrieve", lambda: self._client.v1.customers.retrieve_async(customer_id), BACKGROUND
            )
        except stripe.InvalidRequestError as error:
            if error.http_status == 404:
                return ""
            raise
        return str((customer.to_dict(for_json=True).get("metadata") or {}).get(ACCOUNT_KEY, ""))

    async def _all(self, name: str, first: Callable[[], Awaitable[stripe.ListObject[Any]]]) -> list[dict[str, Any]]:
        """A whole list. Each page is a call: it waits for its turn, and fails as calls do."""
        page = await self._call(name, first, BACKGROUND)
        listed = [each.to_dict(for_json=True) for each in page.data]
        while page.has_more:
            page = await self._call(name, page.next_page_async, BACKGROUND)
            listed += [each.to_dict(for_json=True) for each in page.data]
        return listed

    async def _call(
        self,
        name: str,
        call: Callable[[], Awaitable[T]],
        priority: int = PEOPLE,
        *,
        stored_failure: bool = False,
    ) -> T:
        async with self._limited(name, priority):
            try:
                async with asyncio.timeout(self._patience_s):
                    return await call()
            except (TimeoutError, stripe.APIConnectionError, stripe.RateLimitError) as error:
                raise self._unavailable(name, error) from error
            except stripe.IdempotencyError as error:
                # The key stands for a call with other parameters: what it is about has changed since.
                if stored_failure:
                    raise StripeRetryable(name) from error
                raise self._unavailable(name, error) from error
            except stripe.APIError as error:
                if stored_failure and (error.http_status or 0) >= 500:
                    raise StripeRetryable(name) from error
                raise self._unavailable(name, error) from error
            except (stripe.AuthenticationError, stripe.PermissionError) as error:
                # The operator's to mend, not the caller's to know.
                log.error("stripe.key_refused", call=name, error=type(error).__name__)
                raise self._unavailable(name, error) from error

    @asynccontextmanager
    async def _limited(self, name: str, priority: int) -> AsyncIterator[None]:
        await self._bucket.take(priority)
        began = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            telemetry.observe("tollway_stripe_seconds", asyncio.get_running_loop().time() - began, call=name)

    def _unavailable(self, name: str, error: Exception) -> StripeUnavailable:
        log.warning("stripe.unavailable", call=name, error=type(error).__name__)
        return StripeUnavailable(
            "Stripe does not answer right now. Nothing was bought; try again in a moment.",
            retry_after=timedelta(seconds=5),
        )
