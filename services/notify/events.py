"""The events that notify believes, as the notices they become. It announces none itself."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.message import Message as Proto
from google.protobuf.timestamp_pb2 import Timestamp

from services.notify import domain
from tollway.billing.v1 import events_pb2

HANDLED: tuple[type[Proto], ...] = (events_pb2.InvoicePaid, events_pb2.InvoicePaymentFailed)
_BY_TYPE = {cls.DESCRIPTOR.full_name: cls for cls in HANDLED}


def read(event_type: str, data: bytes) -> domain.Notice:
    """The notice in a stored event. Raises KeyError for a type we do not handle, DecodeError for other bytes."""
    event = _BY_TYPE[event_type]()
    event.ParseFromString(data)
    return to_notice(event)


def to_notice(event: Proto) -> domain.Notice:
    """Raises ValueError for an event without an invoice: it can be about nobody."""
    if isinstance(event, events_pb2.InvoicePaid):
        return domain.Receipt(_invoice(event.invoice), _time(event.paid_time) or _EPOCH)
    if isinstance(event, events_pb2.InvoicePaymentFailed):
        return domain.PaymentFailed(
            _invoice(event.invoice),
            next_attempt_time=_time(event.next_attempt_time) if event.HasField("next_attempt_time") else None,
            grace_days=event.grace_days,
            grace_end_time=_time(event.grace_end_time) if event.HasField("grace_end_time") else None,
            action_required=event.action_required,
        )
    raise ValueError(f"notify has nothing to say about {event.DESCRIPTOR.full_name}")


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _time(stamp: Timestamp) -> datetime | None:
    return stamp.ToDatetime(UTC) if stamp.seconds else None


def _invoice(invoice: events_pb2.Invoice) -> domain.Invoice:
    if not invoice.id or not invoice.account_id:
        raise ValueError("the event names no invoice or no account")
    brand = invoice.brand
    return domain.Invoice(
        id=invoice.id,
        account_id=invoice.account_id,
        account_name=invoice.account_name,
        number=invoice.number,
        amount_due=invoice.amount_due,
        amount_paid=invoice.amount_paid,
        currency=invoice.currency,
        hosted_url=invoice.hosted_invoice_url,
        pdf_url=invoice.invoice_pdf_url,
        contact_email=invoice.contact_email,
        customer_email=invoice.customer_email,
        brand=domain.Brand(brand.name, brand.support_contact, brand.color, brand.billing_url),
    )
