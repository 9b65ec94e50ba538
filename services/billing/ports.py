"""What billing needs of Stripe, in its own words. `stripe.py` speaks to it; tests have a fake of the same contract."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.billing.catalog import Catalog
from services.billing.domain.customer import Subscriber, SubscriberPage
from services.billing.domain.metering import Report
from services.billing.domain.plan_change import PlanChange, Preview
from services.billing.domain.refund import Seen
from services.billing.domain.subscription import Invoice, Subscription
from tollway.billing.v1 import events_pb2


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
    metered_price_ids: tuple[str, ...] = ()  # of units that are sold beside it


@dataclass(frozen=True)
class Session:
    id: str
    url: str  # empty when it is not open any more
    status: str  # open, complete, expired
    expire_time: datetime


@dataclass(frozen=True)
class SignInLink:
    """What is mailed to a person who asked to sign in. `url` holds the live token."""

    recipient: str
    url: str
    expire_time: datetime
    brand: events_pb2.Brand


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


@dataclass(frozen=True)
class BaseFee:
    """What a paid invoice charged for a plan itself: its line with discounts and tax, whole minor units."""

    payment_intent: str
    amount: int
    currency: str


@dataclass(frozen=True)
class Upcoming:
    """What the next invoice of a subscription will charge, in whole minor units."""

    amount_due: int
    currency: str


@dataclass(frozen=True)
class Counted:
    """What quota has counted of a limit. `used` None: the plan has no such limit. `version`: of the entitlements that
    it knew then."""

    version: int
    used: int | None


class Usage(Protocol):
    async def counted(self, account_id: str, limit: str) -> Counted:
        """Raises Unavailable when quota does not answer."""
        ...

    async def used(self, account_id: str) -> dict[str, int]:
        """Units used by limit, in each one's present period. Raises Unavailable."""
        ...


class Payments(Protocol):
    """Every call raises StripeUnavailable when Stripe gave no answer that settles it."""

    async def create_customer(self, account_id: str, email: str, name: str, attempt: int = 1) -> str:
        """The customer's id. Calling again for the same account returns the same customer. `email` may be empty.
        Raises StripeRetryable when the attempt's answer is stored as a failure: the next attempt is needed."""
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

    async def list_invoices(self, customer_id: str) -> list[Invoice]:
        """All of the customer's, drafts left out."""
        ...

    async def events_since(self, since: datetime, types: Collection[str]) -> list[bytes]:
        """Events of these types, as JSON, as a webhook would bring them."""
        ...

    async def account_of_customer(self, customer_id: str) -> str:
        """The account id that we wrote on the customer; empty for a customer that is not ours."""
        ...

    async def push(
        self, catalog: Catalog, return_url: str, *, endpoint: Endpoint | None = None, dry_run: bool = False
    ) -> Pushed:
        """Makes what the catalog sells exist at Stripe. Running it again changes nothing."""
        ...

    async def cancel_subscription(self, subscription_id: str, key: str) -> None:
        """Ends it at once, with no credit; units that were reported and not invoiced are on a last invoice. One that
        has ended already stays so."""
        ...

    async def base_fee(self, invoice_id: str, price_ids: Collection[str]) -> BaseFee | None:
        """What of a paid invoice may be given back for these prices; None when nothing of it can."""
        ...

    async def refund(self, payment_intent: str, amount: int, refund_id: str, key: str) -> Seen:
        """Gives money back once for our `refund_id`: an earlier try that went through is found first. Raises
        StripeRetryable as create_session does, and RefundRejected when Stripe never will."""
        ...

    async def reversals(self, charge_id: str) -> list[Seen]:
        """The refunds and disputes of a charge."""
        ...

    async def report_usage(self, report: Report, catalog: Catalog) -> None:
        """Adds units to a meter of the customer's; the same report again adds nothing. Raises UsageRejected."""
        ...

    async def preview_change(self, change: PlanChange) -> Preview:
        """The invoice that change_plan would make now. Changes nothing."""
        ...

    async def upcoming(self, subscription_id: str) -> Upcoming | None:
        """What its next invoice will charge as things are now; None when there will be none."""
        ...

    async def change_plan(self, change: PlanChange) -> None:
        """With proration invoiced at once. What is so already stays. Raises PaymentDeclined: nothing changed."""
        ...

    async def set_cancellation(self, subscription_id: str, *, cancel: bool) -> None:
        """Whether it ends with its period. What is so already stays."""
        ...

    async def subscribers(self, after: str, limit: int) -> SubscriberPage:
        """Customers with subscriptions that have not ended, so many subscriptions at a time; `after` is a page's
        `next_token`, empty at the beginning. One whose subscriptions lie on two pages is on both."""
        ...

    async def subscriber(self, customer_id: str) -> Subscriber | None:
        """One customer, whether it subscribes or not; None when Stripe has none of this id (any more)."""
        ...

    async def customers_with_email(self, email: str) -> list[str]:
        """Ids of customers with exactly this address."""
        ...

    async def update_customer(self, customer_id: str, account_id: str, email: str) -> None:
        """Writes on the customer whose it is, and its address unless that is empty."""
        ...

    async def delete_customer(self, customer_id: str) -> None:
        """Clears and deletes it; one that is gone stays so. Stripe keeps its invoices."""
        ...

    async def list_subscriptions(self, after: str, limit: int) -> tuple[list[Subscription], str]:
        """All that there are, ended ones too, newest first, so many at a time; and where to go on (empty: the end)."""
        ...

    async def customer_of_charge(self, charge_id: str) -> str:
        """Empty for a charge without a customer, or that does not exist."""
        ...


class SignInMail(Protocol):
    async def send(self, link: SignInLink) -> None:
        """Once it returns, a mail server has it. Raises Unavailable when trying again may help."""
        ...


class UsageRejected(Exception):
    """Stripe refuses this report of use for good."""


class RefundRejected(Exception):
    """Stripe refuses this refund for good: the charge is disputed, or nothing of it is left."""


class StripeRetryable(Exception):
    """Stripe stored a failure under this idempotency key and would answer it again: try with another key."""
