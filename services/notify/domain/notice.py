"""What is told to whom: one class for each kind of mail, with the facts that its words need."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar


@dataclass(frozen=True)
class Brand:
    """How the seller shows itself. `color` is `#rrggbb`; `sender` may be empty: the installation's address then."""

    name: str
    support_contact: str
    color: str
    billing_url: str
    sender: str = ""


@dataclass(frozen=True)
class Addressee:
    """Whom a mail is for, and in whose name. Names and addresses as people typed them."""

    account_id: str
    account_name: str
    contact_email: str
    customer_email: str
    brand: Brand


@dataclass(frozen=True)
class Invoice:
    """Amounts in whole minor units of `currency` (ISO 4217, lower case)."""

    id: str
    number: str
    amount_due: int
    amount_paid: int
    currency: str
    hosted_url: str
    pdf_url: str


@dataclass(frozen=True)
class Notice:
    """There is at most one mail of a `kind` about a `subject_id`. Notices of one `topic` overtake one another: what
    has a lower `rank` is not sent any more once a higher one is known.
    """

    kind: ClassVar[str]
    # Why a lower one is not sent, as operators read it.
    overtaken: ClassVar[str] = "something newer was told before this could be sent"
    to: Addressee

    @property
    def subject_id(self) -> str:
        raise NotImplementedError

    @property
    def topic(self) -> str:
        return self.subject_id

    @property
    def rank(self) -> int:
        return 0

    @property
    def needless(self) -> str:
        """Why there is nothing to send, or an empty string."""
        return ""


@dataclass(frozen=True)
class Receipt(Notice):
    """An invoice was paid."""

    kind: ClassVar[str] = "receipt"
    overtaken: ClassVar[str] = "the invoice was paid before this could be sent"
    invoice: Invoice
    paid_time: datetime

    @property
    def subject_id(self) -> str:
        return self.invoice.id

    @property
    def rank(self) -> int:
        return 1

    @property
    def needless(self) -> str:
        return _nothing_to_pay(self.invoice.amount_paid)


@dataclass(frozen=True)
class PaymentFailed(Notice):
    """A charge failed, or the customer's bank wants a confirmation (`action_required`)."""

    kind: ClassVar[str] = "payment_failed"
    overtaken: ClassVar[str] = "the invoice was paid before this could be sent"
    invoice: Invoice
    next_attempt_time: datetime | None
    grace_days: int
    grace_end_time: datetime | None
    action_required: bool

    @property
    def subject_id(self) -> str:
        return self.invoice.id

    @property
    def needless(self) -> str:
        return _nothing_to_pay(self.invoice.amount_due)


@dataclass(frozen=True)
class Refunded(Notice):
    """Money of an invoice was given back. `by_policy`: which ended the subscription, too."""

    kind: ClassVar[str] = "refund"
    refund_id: str
    invoice_number: str
    amount: int
    currency: str
    by_policy: bool
    refund_time: datetime

    @property
    def subject_id(self) -> str:
        return self.refund_id

    @property
    def needless(self) -> str:
        return _nothing_to_pay(self.amount)


@dataclass(frozen=True)
class TrialEnding(Notice):
    """A trial ends in a few days. `amount` None: not known what is due then. `ends_plan`: the plan goes with it."""

    kind: ClassVar[str] = "trial_ending"
    subscription_id: str
    tier_name: str
    end_time: datetime
    amount: int | None
    currency: str
    ends_plan: bool

    @property
    def subject_id(self) -> str:
        # A trial that was made longer ends once more.
        return f"{self.subscription_id}:{_compact(self.end_time)}"


@dataclass(frozen=True)
class Cancellation(Notice):
    """A plan will end (`ended` false), or it has. `unpaid`: because a payment failed."""

    kind: ClassVar[str] = "cancellation"
    overtaken: ClassVar[str] = "the plan had ended before this could be sent"
    subscription_id: str
    tier_name: str
    end_time: datetime
    ended: bool
    unpaid: bool

    @property
    def subject_id(self) -> str:
        # Who resumes and cancels again in another period is told again.
        return self.subscription_id if self.ended else f"{self.subscription_id}:{_compact(self.end_time)}"

    @property
    def topic(self) -> str:
        return self.subscription_id

    @property
    def rank(self) -> int:
        return int(self.ended)


@dataclass(frozen=True)
class LimitNotice(Notice):
    """Use of `meters` in a period against a limit, in units. `period`: month, billing_period or lifetime."""

    overtaken: ClassVar[str] = "more of the limit was used before this could be sent"
    limit_name: str
    meters: tuple[str, ...]
    used: int
    limit: int
    period: str
    period_start: datetime
    period_end: datetime | None

    @property
    def topic(self) -> str:
        # With the limit itself: what is said of a limit says nothing of the one it was raised to.
        return f"{self.to.account_id}:{self.limit_name}:{_compact(self.period_start)}:{self.limit}"


@dataclass(frozen=True)
class UsageThreshold(LimitNotice):
    """Use came to `percent` of a limit. `own_cap`: one that the account set on itself."""

    kind: ClassVar[str] = "usage_threshold"
    percent: int
    own_cap: bool

    @property
    def subject_id(self) -> str:
        return f"{self.to.account_id}:{self.limit_name}:{_compact(self.period_start)}:{self.percent}"

    @property
    def rank(self) -> int:
        return self.percent

    @property
    def needless(self) -> str:
        return "the notice of the cap says it" if self.own_cap and self.percent >= 100 else ""


@dataclass(frozen=True)
class CapReached(LimitNotice):
    """Use came to the cap that the account set on itself. `auto_stop`: uses are refused from now on."""

    kind: ClassVar[str] = "cap_reached"
    auto_stop: bool

    @property
    def subject_id(self) -> str:
        # Who raises a cap and comes to the new one is told again.
        return self.topic

    @property
    def rank(self) -> int:
        return 1000


def _nothing_to_pay(amount: int) -> str:
    return "nothing to pay: no mail for a zero amount" if amount <= 0 else ""


def _compact(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
