"""What billing needs of Stripe, in its own words. `stripe.py` speaks to it; tests have a fake of the same contract."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.billing.catalog import Catalog
from services.billing.domain.subscription import Invoice, Subscription


@dataclass(frozen=True)
class NewSession:
    """A Checkout session to open. `key` is the idempotency key: the same key opens the same session."""

    key: str
    account_id: str
    customer_id: str
    price_id: str
    success_url: str
    cancel_url: str
    promotion_codes: bool
    trial_days: int
    automatic_tax: bool


@dataclass(frozen=True)
class Session:
    id: str
    url: str  # empty when it is not open any more
    status: str  # open, complete, expired
    expire_time: datetime


@dataclass(frozen=True)
class FromStripe:
    """All that one sync reads of an account."""

    subscriptions: list[Subscription]
    invoices: list[Invoice]
    last_paid_price_id: str  # empty unless it was asked for and found


@dataclass(frozen=True)
class Pushed:
    """What a push found or made: lookup key → price id."""

    prices: dict[str, str]
    portal_configuration: str
    changes: list[str]  # one line each; empty when Stripe had it all
    webhook_secret: str = ""  # of an endpoint that was made now: Stripe shows it this once


@dataclass(frozen=True)
class Endpoint:
    """Where Stripe is to send its events, and which."""

    url: str
    events: frozenset[str]


class Payments(Protocol):
    """Every call raises StripeUnavailable when Stripe gave no answer that settles it."""

    async def create_customer(self, account_id: str, email: str, name: str) -> str:
        """The customer's id. Calling again for the same account returns the same customer. `email` may be empty."""
        ...

    async def create_session(self, new: NewSession) -> Session:
        """Raises StripeRetryable when the key's answer is stored as a failure: a new key is needed."""
        ...

    async def session(self, session_id: str) -> Session: ...

    async def expire_session(self, session_id: str) -> Session:
        """The session afterwards: expired, or complete when the person was faster."""
        ...

    async def create_portal_session(self, customer_id: str, return_url: str, configuration: str) -> str:
        """The page's address."""
        ...

    async def read(self, customer_id: str, invoice_ids: list[str], *, want_last_paid: bool) -> FromStripe:
        """All the customer's subscriptions, their latest invoices, and the named invoices of that customer."""
        ...

    async def account_of_customer(self, customer_id: str) -> str:
        """The account id that we wrote on the customer; empty for a customer that is not ours."""
        ...

    async def push(
        self, catalog: Catalog, return_url: str, *, endpoint: Endpoint | None = None, dry_run: bool = False
    ) -> Pushed:
        """Makes what the catalog sells exist at Stripe. Running it again changes nothing."""
        ...


class StripeRetryable(Exception):
    """Stripe stored a failure under this idempotency key and would answer it again: try with another key."""
