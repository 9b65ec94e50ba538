"""Customers as Stripe has them, and whether one that subscribes there becomes an account here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.billing.domain.subscription import Subscription


@dataclass(frozen=True)
class Customer:
    id: str
    email: str  # as Stripe has it; may be empty
    name: str  # as typed; may be empty
    account_id: str  # that somebody wrote on it; empty for one that no installation of tollway has known
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subscriber:
    """A customer with subscriptions that have not ended."""

    customer: Customer
    subscriptions: tuple[Subscription, ...]

    @property
    def live(self) -> tuple[Subscription, ...]:
        return tuple(s for s in self.subscriptions if s.live)


@dataclass(frozen=True)
class SubscriberPage:
    subscribers: tuple[Subscriber, ...]
    next_token: str  # empty on the last page


class Outcome(StrEnum):
    IMPORTED = "imported"
    ALREADY_OURS = "already_ours"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Known:
    """What is known here, and at Stripe, of whom a customer could be."""

    bound_account_id: str = ""  # the account that has this customer
    named_account_id: str = ""  # the account that the customer names, when there is one here
    named_has_other: bool = False  # and it has another customer
    identity: str | None = None  # its external id; empty: it should have one; None: it is not asked for
    identity_account_id: str = ""  # the account of that identity
    identity_has_other: bool = False  # and it has another customer
    email_account_id: str = ""  # an account with the customer's address
    email_customer_id: str = ""  # another subscriber with that address


@dataclass(frozen=True)
class Verdict:
    """`account_id`: its own, of one that is ours or is to be bound; else the one in the way. `reason`: of a skip."""

    outcome: Outcome
    account_id: str = ""
    reason: str = ""
    message: str = ""


def judge(subscriber: Subscriber, known: Known, *, separate: bool) -> Verdict:
    """What becomes of it when nobody says more. What could mean two things is skipped with a sentence that says what
    to do. `separate`: an operator has looked, and wants an account of its own."""
    customer = subscriber.customer
    option = f"--customer {customer.id}"
    if known.bound_account_id:
        return Verdict(Outcome.ALREADY_OURS, known.bound_account_id)
    if not subscriber.live:
        return _skipped("NO_LIVE_SUBSCRIPTION", "It has no subscription that runs.")
    if known.named_account_id and not known.named_has_other:
        return Verdict(Outcome.IMPORTED, known.named_account_id)
    if known.identity and not known.identity_has_other:
        return Verdict(Outcome.IMPORTED, known.identity_account_id)
    if separate:
        return Verdict(Outcome.IMPORTED)
    if known.identity_has_other:
        message = f"The account of its identity has another customer. With {option} --separate it gets its own."
        return _skipped("BOUND_OTHERWISE", message, known.identity_account_id)
    if known.identity == "":
        return _skipped("NO_IDENTITY", f"Its metadata names no identity. Add it at Stripe, or use {option} --separate.")
    if known.named_account_id:
        message = f"It names an account that has another customer. With {option} --separate it gets its own."
        return _skipped("BOUND_OTHERWISE", message, known.named_account_id)
    if customer.account_id:
        message = f"It names an account that is not here. With {option} --separate it gets one here."
        return _skipped("OF_ANOTHER_INSTALLATION", message)
    if not customer.email:
        message = f"It has no address. Give it one at Stripe, or use {option} --separate."
        return _skipped("NO_EMAIL", message)
    if known.email_account_id:
        message = f"An account has its address: {option} --account {known.email_account_id} binds it, or --separate."
        return _skipped("EMAIL_OF_ACCOUNT", message, known.email_account_id)
    if known.email_customer_id:
        message = f"{known.email_customer_id} has this address, too. With {option} --separate it gets its own."
        return _skipped("EMAIL_OF_ANOTHER_CUSTOMER", message)
    return Verdict(Outcome.IMPORTED)


def _skipped(reason: str, message: str, account_id: str = "") -> Verdict:
    return Verdict(Outcome.SKIPPED, account_id, reason, message)
