"""A Stripe in memory, as billing's `Payments` port sees it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from services.billing.catalog import Catalog
from services.billing.domain.customer import Customer, Subscriber, SubscriberPage
from services.billing.domain.metering import Report
from services.billing.domain.plan_change import PlanChange, Preview
from services.billing.domain.refund import Seen
from services.billing.domain.subscription import Invoice, Subscription
from services.billing.errors import PaymentDeclined, StripeUnavailable
from services.billing.ports import (
    BaseFee,
    Endpoint,
    FromStripe,
    NewSession,
    Pushed,
    Session,
    StripeRetryable,
    Upcoming,
    UsageRejected,
)

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class FakePayments:
    """What a test does at Stripe it does through `pay`, `subscriptions` and `invoices`."""

    prices: dict[str, str] = field(default_factory=dict)  # lookup key → price id
    customers: dict[str, str] = field(default_factory=dict)  # customer id → account id
    people: dict[str, tuple[str, str]] = field(default_factory=dict)  # customer id → email, name
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)  # of customers
    sessions: dict[str, Session] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    invoices: dict[str, Invoice] = field(default_factory=dict)
    given_back: dict[str, Seen] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)  # by identifier
    lose_answers: int = 0  # of reports of use that are taken
    events: list[bytes] = field(default_factory=list)  # what Stripe would list
    rejecting_usage: bool = False
    declining: bool = False
    down: bool = False
    failing_keys: set[str] = field(default_factory=set)  # idempotency keys under which a 500 is stored
    reads: int = 0
    _by_key: dict[str, str] = field(default_factory=dict)
    _of_session: dict[str, NewSession] = field(default_factory=dict)

    def _answer(self) -> None:
        if self.down:
            raise StripeUnavailable("down")

    async def create_customer(self, account_id: str, email: str, name: str, attempt: int = 1) -> str:
        self._answer()
        if (f"{account_id}:customer:{attempt}" if attempt > 1 else f"{account_id}:customer") in self.failing_keys:
            raise StripeRetryable(account_id)
        customer_id = f"cus_{account_id}"
        self.customers[customer_id] = account_id
        self.people[customer_id] = (email, name)
        return customer_id

    async def create_session(self, new: NewSession) -> Session:
        self._answer()
        if new.key in self.failing_keys:
            raise StripeRetryable(new.key)
        if new.key not in self._by_key:
            session_id = f"cs_test_{len(self.sessions) + 1}"
            self._by_key[new.key] = session_id
            self._of_session[session_id] = new
            url = f"https://pay.example/{session_id}"
            self.sessions[session_id] = Session(session_id, url, "open", START + timedelta(days=1))
        return self.sessions[self._by_key[new.key]]

    async def session(self, session_id: str) -> Session:
        self._answer()
        return self.sessions[session_id]

    async def expire_session(self, session_id: str) -> Session:
        self._answer()
        if self.sessions[session_id].status == "open":
            self.sessions[session_id] = replace(self.sessions[session_id], status="expired", url="")
        return self.sessions[session_id]

    async def create_portal_session(self, customer_id: str, return_url: str, configuration: str) -> str:
        self._answer()
        return f"https://portal.example/{customer_id}"

    async def read(self, customer_id: str, invoice_ids: list[str], *, want_last_paid: bool) -> FromStripe:
        self._answer()
        self.reads += 1
        mine = [s for s in self.subscriptions.values() if s.customer_id == customer_id]
        latest: dict[str, Invoice] = {}
        for invoice in sorted(self.invoices.values(), key=lambda i: i.create_time):
            latest[invoice.subscription_id] = invoice
        wanted = {latest[s.id].id for s in mine if s.id in latest} | set(invoice_ids)
        invoices = [self.invoices[each] for each in sorted(wanted) if each in self.invoices]
        paid = [i for i in self.invoices.values() if i.customer_id == customer_id and i.status == "paid"]
        last = max(paid, key=lambda i: i.create_time).price_id if paid and want_last_paid else ""
        return FromStripe(mine, [i for i in invoices if i.customer_id == customer_id], last)

    async def list_invoices(self, customer_id: str) -> list[Invoice]:
        self._answer()
        return [i for i in self.invoices.values() if i.customer_id == customer_id and i.status != "draft"]

    async def events_since(self, since: datetime, types: Collection[str]) -> list[bytes]:
        self._answer()
        return list(self.events)

    async def account_of_customer(self, customer_id: str) -> str:
        self._answer()
        return self.customers.get(customer_id, "")

    async def push(
        self, catalog: Catalog, return_url: str, *, endpoint: Endpoint | None = None, dry_run: bool = False
    ) -> Pushed:
        self._answer()
        changes = []
        for name, tier in catalog.tiers.items():
            for price in [*tier.prices, *(m for p in tier.prices for m in catalog.metered_prices(name, p))]:
                if price.lookup_key not in self.prices:
                    if not dry_run:
                        self.prices[price.lookup_key] = f"price_{price.lookup_key}"
                    changes.append(f"price {price.lookup_key} created")
        return Pushed(dict(self.prices), "bpc_1", changes)

    async def cancel_subscription(self, subscription_id: str, key: str) -> None:
        self._answer()
        self.change(subscription_id, status="canceled", ended_at=START)

    async def base_fee(self, invoice_id: str, price_ids: Collection[str]) -> BaseFee | None:
        self._answer()
        invoice = self.invoices[invoice_id]
        charged = invoice.price_id in price_ids and invoice.amount_paid > 0
        return BaseFee(f"pi_{invoice_id}", invoice.amount_paid, invoice.currency) if charged else None

    async def refund(self, payment_intent: str, amount: int, refund_id: str, key: str) -> Seen:
        self._answer()
        for made in self.given_back.values():
            if made.policy_refund_id == refund_id:
                return made
        if key in self.failing_keys:
            raise StripeRetryable(key)
        return self.give_back(payment_intent.removeprefix("pi_"), amount, refund_id)

    async def report_usage(self, report: Report, catalog: Catalog) -> None:
        self._answer()
        if self.rejecting_usage:
            raise UsageRejected("timestamp_too_far_in_past")
        self.reports.setdefault(report.identifier, report)
        if self.lose_answers:
            self.lose_answers -= 1
            raise StripeUnavailable("the answer was lost")

    async def preview_change(self, change: PlanChange) -> Preview:
        self._answer()
        return Preview(1450, 1450, "usd", (("Unused time", -1450), ("Remaining time", 2900)))

    async def upcoming(self, subscription_id: str) -> Upcoming | None:
        self._answer()
        return None if self.subscriptions[subscription_id].ends_by_itself else Upcoming(2900, "usd")

    async def change_plan(self, change: PlanChange) -> None:
        self._answer()
        if self.declining:
            raise PaymentDeclined("declined")
        lookup_key = next(key for key, price_id in self.prices.items() if price_id == change.price_id)
        self.change(change.subscription_id, price_id=change.price_id, lookup_key=lookup_key)

    async def set_cancellation(self, subscription_id: str, *, cancel: bool) -> None:
        self._answer()
        self.change(subscription_id, cancel_at_period_end=cancel, cancel_at=None)

    async def subscribers(self, after: str, limit: int) -> SubscriberPage:
        self._answer()
        open_ones = sorted((s for s in self.subscriptions.values() if s.status != "canceled"), key=_newest_first)
        begin = next((i + 1 for i, s in enumerate(open_ones) if s.id == after), 0)
        page = open_ones[begin : begin + limit]
        customers = dict.fromkeys(s.customer_id for s in page)
        found = [
            Subscriber(self._customer(each), tuple(s for s in page if s.customer_id == each)) for each in customers
        ]
        return SubscriberPage(tuple(found), page[-1].id if len(open_ones) > begin + limit else "")

    async def subscriber(self, customer_id: str) -> Subscriber | None:
        self._answer()
        if customer_id not in self.customers:
            return None
        mine = [s for s in self.subscriptions.values() if s.customer_id == customer_id and s.status != "canceled"]
        return Subscriber(self._customer(customer_id), tuple(mine))

    async def customers_with_email(self, email: str) -> list[str]:
        self._answer()
        return [each for each in self.customers if self._customer(each).email == email]

    async def update_customer(self, customer_id: str, account_id: str, email: str) -> None:
        self._answer()
        self.customers[customer_id] = account_id
        if email:
            self.people[customer_id] = (email, self._customer(customer_id).name)

    async def delete_customer(self, customer_id: str) -> None:
        self._answer()
        self.customers.pop(customer_id, None)
        self.people.pop(customer_id, None)
        for each in [s for s in self.subscriptions.values() if s.customer_id == customer_id and s.ended_at is None]:
            self.change(each.id, status="canceled", ended_at=START)

    async def list_subscriptions(self, after: str, limit: int) -> tuple[list[Subscription], str]:
        self._answer()
        everything = sorted(self.subscriptions.values(), key=_newest_first)
        begin = next((i + 1 for i, s in enumerate(everything) if s.id == after), 0)
        page = everything[begin : begin + limit]
        return page, page[-1].id if len(everything) > begin + limit else ""

    def _customer(self, customer_id: str) -> Customer:
        email, name = self.people.get(customer_id, ("", ""))
        return Customer(customer_id, email, name, self.customers[customer_id], self.metadata.get(customer_id, {}))

    async def reversals(self, charge_id: str) -> list[Seen]:
        self._answer()
        return [seen for seen in self.given_back.values() if seen.charge_id == charge_id]

    async def customer_of_charge(self, charge_id: str) -> str:
        self._answer()
        invoice = self.invoices.get(charge_id.removeprefix("ch_"))
        return invoice.customer_id if invoice else ""

    # What a person, or time, does at Stripe.

    def give_back(self, invoice_id: str, amount: int, refund_id: str = "", kind: str = "refund") -> Seen:
        """A refund, or a dispute, of the invoice's charge."""
        number = len(self.given_back) + 1
        seen = Seen(
            id=f"{'re' if kind == 'refund' else 'du'}_{number}",
            kind=kind,
            charge_id=f"ch_{invoice_id}",
            invoice_id=invoice_id,
            customer_id=self.invoices[invoice_id].customer_id,
            amount=amount,
            currency=self.invoices[invoice_id].currency,
            status="succeeded" if kind == "refund" else "needs_response",
            reason="",
            policy_refund_id=refund_id,
            create_time=START + timedelta(minutes=number),
        )
        self.given_back[seen.id] = seen
        return seen

    def pay(self, session_id: str, lookup_key: str = "skytale_pro_month") -> Subscription:
        """Completes a Checkout session: the subscription and its paid first invoice exist from now on."""
        new = self._of_session[session_id]
        self.sessions[session_id] = replace(self.sessions[session_id], status="complete", url="")
        return self.subscribe(new.customer_id, new.price_id, lookup_key)

    def subscribe(self, customer_id: str, price_id: str, lookup_key: str, status: str = "active") -> Subscription:
        number = len(self.subscriptions) + 1
        begin = START + timedelta(seconds=number)
        subscription = Subscription(
            id=f"sub_{number}",
            customer_id=customer_id,
            status=status,
            price_id=price_id,
            lookup_key=lookup_key,
            interval="month",
            create_time=begin,
            anchor=begin,
            period_start=begin,
            period_end=begin + timedelta(days=31),
            cancel_at_period_end=False,
            cancel_at=None,
            canceled_at=None,
            ended_at=None,
            trial_end=None,
        )
        self.subscriptions[subscription.id] = subscription
        self.bill(subscription, paid=status != "incomplete")
        return subscription

    def bill(self, subscription: Subscription, *, paid: bool, attempts: int = 1, amount: int = 2900) -> Invoice:
        number = len(self.invoices) + 1
        invoice = Invoice(
            id=f"in_{number}",
            customer_id=subscription.customer_id,
            subscription_id=subscription.id,
            number=f"FAKE-{number:04}",
            status="paid" if paid else "open",
            currency="usd",
            amount_due=amount,
            amount_paid=amount if paid else 0,
            attempt_count=attempts,
            next_attempt_time=None,
            hosted_url=f"https://invoice.example/in_{number}",
            pdf_url=f"https://invoice.example/in_{number}.pdf",
            customer_email="ada@example.com",
            billing_reason="subscription_cycle",
            price_id=subscription.price_id,
            create_time=START + timedelta(hours=number),
            paid_time=START + timedelta(hours=number) if paid else None,
        )
        self.invoices[invoice.id] = invoice
        return invoice

    def settle(self, invoice_id: str) -> None:
        invoice = self.invoices[invoice_id]
        self.invoices[invoice_id] = replace(
            invoice, status="paid", amount_paid=invoice.amount_due, paid_time=invoice.create_time
        )

    def change(self, subscription_id: str, **values: object) -> Subscription:
        changed = replace(self.subscriptions[subscription_id], **values)  # type: ignore[arg-type]
        self.subscriptions[subscription_id] = changed
        return changed


def _newest_first(subscription: Subscription) -> float:
    return -subscription.create_time.timestamp()
