"""The events that notify believes, as the notices they become. It announces none itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message as Proto
from google.protobuf.timestamp_pb2 import Timestamp

from services.notify import domain
from tollway.billing.v1 import entitlement_pb2, events_pb2, recipient_pb2
from tollway.quota.v1 import events_pb2 as quota_pb2

_PERIODS = {
    entitlement_pb2.PERIOD_MONTH: "month",
    entitlement_pb2.PERIOD_BILLING: "billing_period",
    entitlement_pb2.PERIOD_LIFETIME: "lifetime",
}

# Quota's events name an account and nobody to write to: billing is asked for that.
WITHOUT_ADDRESS: tuple[type[Proto], ...] = (quota_pb2.UsageThresholdReached, quota_pb2.CapReached)


def read(event_type: str, event: bytes, recipient: bytes) -> domain.Notice:
    """The notice in a stored event. Raises KeyError for a type we do not handle, DecodeError for other bytes."""
    message = BY_TYPE[event_type]()
    message.ParseFromString(event)
    return to_notice(message, recipient_pb2.Recipient.FromString(recipient))


def to_notice(event: Proto, recipient: recipient_pb2.Recipient) -> domain.Notice:
    """`recipient` is empty but for quota's events. Raises ValueError for an event about nobody or nothing."""
    known = _NOTICES.get(type(event))
    if known is None:
        raise ValueError(f"notify has nothing to say about {event.DESCRIPTOR.full_name}")
    return known(event, recipient)


def account_of(event: Proto) -> str:
    """The account that the event is about. Raises ValueError when it names none."""
    told: Any = getattr(event, "invoice", event)
    if not told.account_id:
        raise ValueError("the event names no account")
    return str(told.account_id)


def _receipt(event: events_pb2.InvoicePaid, _: recipient_pb2.Recipient) -> domain.Receipt:
    return domain.Receipt(addressee(event.invoice), _invoice(event.invoice), _time(event.paid_time) or _EPOCH)


def _payment_failed(event: events_pb2.InvoicePaymentFailed, _: recipient_pb2.Recipient) -> domain.PaymentFailed:
    return domain.PaymentFailed(
        addressee(event.invoice),
        _invoice(event.invoice),
        next_attempt_time=_time(event.next_attempt_time),
        grace_days=event.grace_days,
        grace_end_time=_time(event.grace_end_time),
        action_required=event.action_required,
    )


def _refunded(event: events_pb2.InvoiceRefunded, _: recipient_pb2.Recipient) -> domain.Refunded:
    return domain.Refunded(
        addressee(event),
        _named(event.refund_id, "refund"),
        invoice_number=event.invoice_number,
        amount=event.amount,
        currency=event.currency,
        by_policy=event.by_policy,
        refund_time=_time(event.refund_time) or _EPOCH,
    )


def _trial_ending(event: events_pb2.TrialEnding, _: recipient_pb2.Recipient) -> domain.TrialEnding:
    return domain.TrialEnding(
        addressee(event),
        _named(event.subscription_id, "subscription"),
        tier_name=event.tier_name,
        end_time=_time(event.trial_end_time) or _EPOCH,
        amount=event.amount_due if event.HasField("amount_due") else None,
        currency=event.currency,
        ends_plan=event.ends_subscription,
    )


def _cancellation(event: events_pb2.SubscriptionCanceled, _: recipient_pb2.Recipient) -> domain.Cancellation:
    return domain.Cancellation(
        addressee(event),
        _named(event.subscription_id, "subscription"),
        tier_name=event.tier_name,
        end_time=_time(event.end_time) or _EPOCH,
        ended=event.phase == events_pb2.CANCELLATION_PHASE_ENDED,
        unpaid=event.reason == "payment_failed",
    )


def _threshold(event: quota_pb2.UsageThresholdReached, to: recipient_pb2.Recipient) -> domain.UsageThreshold:
    known = _limit(event.limit_name, to)
    # A cap counts as the account's own unless it is the very number that the tier gives.
    own = known.kind == entitlement_pb2.LIMIT_KIND_CAP and not (known.HasField("limit") and known.limit == event.limit)
    return domain.UsageThreshold(addressee(to), **_use(event, known), percent=event.percent, own_cap=own)


def _cap_reached(event: quota_pb2.CapReached, to: recipient_pb2.Recipient) -> domain.CapReached:
    return domain.CapReached(addressee(to), **_use(event, _limit(event.limit_name, to)), auto_stop=event.auto_stop)


_NOTICES: dict[type[Proto], Callable[[Any, recipient_pb2.Recipient], domain.Notice]] = {
    events_pb2.InvoicePaid: _receipt,
    events_pb2.InvoicePaymentFailed: _payment_failed,
    events_pb2.InvoiceRefunded: _refunded,
    events_pb2.TrialEnding: _trial_ending,
    events_pb2.SubscriptionCanceled: _cancellation,
    quota_pb2.UsageThresholdReached: _threshold,
    quota_pb2.CapReached: _cap_reached,
}
HANDLED = tuple(_NOTICES)
BY_TYPE = {cls.DESCRIPTOR.full_name: cls for cls in HANDLED}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _time(stamp: Timestamp) -> datetime | None:
    """None for one that is not set."""
    return stamp.ToDatetime(UTC) if stamp.seconds else None


def _named(value: str, noun: str) -> str:
    if not value:
        raise ValueError(f"the event names no {noun}")
    return value


def addressee(told: Any) -> domain.Addressee:
    """From whatever carries the fields of billing's Recipient."""
    brand: events_pb2.Brand = told.brand
    return domain.Addressee(
        account_id=_named(told.account_id, "account"),
        account_name=told.account_name,
        contact_email=told.contact_email,
        customer_email=told.customer_email,
        brand=domain.Brand(brand.name, brand.support_contact, brand.color, brand.billing_url, brand.sender),
    )


def _invoice(invoice: events_pb2.Invoice) -> domain.Invoice:
    return domain.Invoice(
        id=_named(invoice.id, "invoice"),
        number=invoice.number,
        amount_due=invoice.amount_due,
        amount_paid=invoice.amount_paid,
        currency=invoice.currency,
        hosted_url=invoice.hosted_invoice_url,
        pdf_url=invoice.invoice_pdf_url,
    )


def _limit(name: str, to: recipient_pb2.Recipient) -> entitlement_pb2.Limit:
    """The limit as the account has it now; one that its tier no longer knows says nothing of itself."""
    return next((limit for limit in to.limits if limit.name == name), entitlement_pb2.Limit(name=name))


def _use(event: Any, known: entitlement_pb2.Limit) -> dict[str, Any]:
    return {
        "limit_name": _named(event.limit_name, "limit"),
        "meters": tuple(event.meters),
        "used": event.used,
        "limit": event.limit,
        "period": _PERIODS.get(known.period, ""),
        "period_start": event.period_start.ToDatetime(UTC),
        "period_end": _time(event.period_end),
    }
