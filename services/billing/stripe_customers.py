"""Stripe's side of importing, changing and erasing customers, as part of `StripePayments`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import stripe

from services.billing.domain.customer import Subscriber, SubscriberPage
from services.billing.domain.subscription import Subscription
from services.billing.stripe_objects import ACCOUNT_KEY, customer_of, subscription_of
from services.billing.token_bucket import BACKGROUND, PEOPLE

T = TypeVar("T")
# Cleared before the deletion, because Stripe still shows deleted customers to those who have their ids.
_PERSONAL = ("address", "description", "email", "name", "phone", "shipping")


class CustomerCalls:
    _client: stripe.StripeClient

    async def _call(
        self, name: str, call: Callable[[], Awaitable[T]], priority: int = PEOPLE, *, stored_failure: bool = False
    ) -> T:
        raise NotImplementedError

    async def _all(self, name: str, first: Callable[[], Awaitable[stripe.ListObject[Any]]]) -> list[dict[str, Any]]:
        raise NotImplementedError

    async def subscribers(self, after: str, limit: int) -> SubscriberPage:
        # Without a status Stripe lists those that have not ended.
        params: Any = {"limit": limit, "expand": ["data.customer"]}
        if after:
            params["starting_after"] = after
        page = await self._call(
            "subscriptions.list", lambda: self._client.v1.subscriptions.list_async(params), BACKGROUND
        )
        listed = [each.to_dict(for_json=True) for each in page.data]
        found: dict[str, Subscriber] = {}
        for each in listed:
            subscription, customer = subscription_of(each), each["customer"]
            if customer.get("deleted"):
                continue
            earlier = found.get(customer["id"])
            others = earlier.subscriptions if earlier else ()
            found[customer["id"]] = Subscriber(customer_of(customer), (*others, subscription))
        return SubscriberPage(tuple(found.values()), listed[-1]["id"] if page.has_more else "")

    async def subscriber(self, customer_id: str) -> Subscriber | None:
        try:
            found = await self._call(
                "customers.retrieve", lambda: self._client.v1.customers.retrieve_async(customer_id)
            )
        except stripe.InvalidRequestError as error:
            if error.http_status == 404:
                return None
            raise
        customer = found.to_dict(for_json=True)
        if customer.get("deleted"):
            return None
        params: Any = {"customer": customer_id, "limit": 100}
        listed = await self._all("subscriptions.list", lambda: self._client.v1.subscriptions.list_async(params))
        return Subscriber(customer_of(customer), tuple(subscription_of(each) for each in listed))

    async def customers_with_email(self, email: str) -> list[str]:
        params: Any = {"email": email, "limit": 100}
        listed = await self._all("customers.list", lambda: self._client.v1.customers.list_async(params))
        return [str(each["id"]) for each in listed]

    async def update_customer(self, customer_id: str, account_id: str, email: str) -> None:
        params: Any = {"metadata": {ACCOUNT_KEY: account_id}}
        if email:
            params["email"] = email
        await self._call(
            "customers.update", lambda: self._client.v1.customers.update_async(customer_id, params), BACKGROUND
        )

    async def delete_customer(self, customer_id: str) -> None:
        params: Any = dict.fromkeys(_PERSONAL, "")
        customers = self._client.v1.customers
        try:
            await self._call("customers.update", lambda: customers.update_async(customer_id, params))
            await self._call("customers.delete", lambda: customers.delete_async(customer_id))
        except stripe.InvalidRequestError as error:
            if error.http_status != 404:  # else it is gone
                raise

    async def list_subscriptions(self, after: str, limit: int) -> tuple[list[Subscription], str]:
        params: Any = {"status": "all", "limit": limit}
        if after:
            params["starting_after"] = after
        page = await self._call(
            "subscriptions.list", lambda: self._client.v1.subscriptions.list_async(params), BACKGROUND
        )
        listed = [subscription_of(each.to_dict(for_json=True)) for each in page.data]
        return listed, listed[-1].id if page.has_more else ""
