"""One notice of each kind with made-up facts, for previews: what people get, before anybody gets it."""

from __future__ import annotations

from datetime import UTC, datetime

from services.notify.domain import (
    Addressee,
    Brand,
    Cancellation,
    CapReached,
    Invoice,
    Notice,
    PaymentFailed,
    Receipt,
    Refunded,
    TrialEnding,
    UsageThreshold,
)

RECIPIENT = "billing@acme.example"
BRAND = Brand("Example", "mailto:support@example.com", "#4f46e5", "https://pay.example.com/dash/acme/billing")


def of(brand: Brand = BRAND) -> dict[str, Notice]:
    """By the name that `tollway notify preview` takes; each kind's main forms."""
    to = Addressee("acct_1", "Acme Rockets", RECIPIENT, "", brand)
    invoice = Invoice(
        "in_1",
        "ABCD1234-0007",
        2900,
        2900,
        "usd",
        "https://invoice.stripe.example/i/1",
        "https://invoice.stripe.example/i/1/pdf",
    )
    begin, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    failed = PaymentFailed(
        invoice=invoice,
        to=to,
        next_attempt_time=datetime(2026, 3, 4, tzinfo=UTC),
        grace_days=7,
        grace_end_time=datetime(2026, 3, 8, tzinfo=UTC),
        action_required=False,
    )
    used = ("downloads_per_month", ("staging_downloads",))
    return {
        "receipt": Receipt(to, invoice, begin),
        "payment_failed": failed,
        "payment_action_required": PaymentFailed(to, invoice, None, 0, None, action_required=True),
        "trial_ending": TrialEnding(to, "sub_1", "Developer", end, 1500, "usd", ends_plan=False),
        "trial_ends_plan": TrialEnding(to, "sub_1", "Developer", end, None, "", ends_plan=True),
        "usage_threshold": UsageThreshold(to, *used, 80_000, 100_000, "month", begin, end, 80, own_cap=False),
        "usage_limit": UsageThreshold(to, *used, 100_000, 100_000, "month", begin, end, 100, own_cap=False),
        "cap_threshold": UsageThreshold(
            to, "download_cap", ("live_downloads",), 4_000, 5_000, "billing_period", begin, end, 80, own_cap=True
        ),
        "cap_reached": CapReached(
            to, "download_cap", ("live_downloads",), 5_000, 5_000, "billing_period", begin, end, auto_stop=True
        ),
        "cap_warning": CapReached(
            to, "download_cap", ("live_downloads",), 5_000, 5_000, "billing_period", begin, end, auto_stop=False
        ),
        "refund": Refunded(to, "re_1", "ABCD1234-0007", 2900, "usd", by_policy=True, refund_time=begin),
        "cancellation": Cancellation(to, "sub_1", "Developer", end, ended=False, unpaid=False),
        "plan_ended": Cancellation(to, "sub_1", "Developer", end, ended=True, unpaid=False),
        "plan_ended_unpaid": Cancellation(to, "sub_1", "Developer", end, ended=True, unpaid=True),
    }
