"""Webhooks mark, a sync reads (DESIGN §4): here they are verified, stored once, and mark their account."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import stripe
import structlog

from services.billing.application.context import Context
from services.billing.application.sync import HOLD
from services.billing.errors import EventMalformed, LivemodeMismatch, SignatureInvalid
from services.billing.storage.webhooks import FOREIGN, IGNORED, PENDING, WebhookEvent
from services.billing.stripe import ACCOUNT_KEY
from services.kit import telemetry
from services.kit.errors import NotFound
from services.kit.failpoint import failpoint

TOLERANCE = timedelta(seconds=300)
# STRIPE.md "Events that matter"; every other type is stored and ignored.
HANDLED = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.expired",
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.resumed",
        "customer.subscription.trial_will_end",
        "invoice.created",
        "invoice.finalized",
        "invoice.finalization_failed",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.payment_action_required",
        "invoice.upcoming",
        "invoice.updated",
        "invoice.voided",
        "invoice.marked_uncollectible",
        # Money that goes back, by policy or at Stripe's.
        "charge.refunded",
        "charge.refund.updated",
        "refund.created",
        "refund.updated",
        "refund.failed",
        "charge.dispute.created",
        "charge.dispute.updated",
        "charge.dispute.closed",
    }
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Ingested:
    event_id: str
    duplicate: bool


async def ingest_webhook(payload: bytes, signature: str, context: Context) -> Ingested:
    """Stores the event once by its id and marks its account, in one commit. Applying it comes after the answer."""
    _verify(payload, signature, context)
    return await store(payload, context)


async def store(payload: bytes, context: Context) -> Ingested:
    """As above, for what is known to be Stripe's."""
    event, account_hint = _parse(payload, livemode=context.settings.livemode)
    async with context.unit_of_work() as uow:
        account = await uow.accounts.of_customer(event.customer_id) if event.customer_id else None
        if account is None and event.type in HANDLED and account_hint:
            try:
                hinted = await uow.accounts.get(account_hint)
            except NotFound:
                hinted = None
            # Our own customer, whose id a crash kept us from noting. The first id is kept for ever.
            if hinted is not None and event.customer_id:
                kept = await uow.accounts.set_customer(hinted.id, event.customer_id)
                account = hinted if kept == event.customer_id else None
        if event.type not in HANDLED:
            status = IGNORED
        elif not event.customer_id and not event.charge_id:
            status = FOREIGN
        else:
            status = PENDING
        account_id = account.id if account is not None else None
        if account is not None and account.erase_time is not None:
            # Stripe tells of the erasure itself, with what was erased.
            event = replace(event, payload=json.dumps({"id": event.id, "type": event.type, "erased": True}).encode())
        mark, claim, is_ours = None, context.new_claim(), False
        if account_id is not None and status == PENDING:
            # In the same transaction, so that the sync need not look for the mark first.
            claimed, is_ours = await uow.marks.want_claimed(account_id, claim, HOLD)
            mark = claimed.wanted
        if not await uow.events.add(event, status, account_id, mark, now=context.wall.now()):
            return Ingested(event.id, duplicate=True)  # without a commit: the mark is taken back
        failpoint("billing.webhook.before_commit")
        await uow.commit()
    failpoint("billing.webhook.after_commit")
    telemetry.count("tollway_webhooks_total", 1, type=event.type, status=status)
    if is_ours and claim is not None:
        context.claimed(claimed, claim)
    elif status == PENDING:
        context.marked()
    return Ingested(event.id, duplicate=False)


def _verify(payload: bytes, signature: str, context: Context) -> None:
    """Raises SignatureInvalid unless a v1 signature fits and its time is within 300 s, past or future."""
    refusal = SignatureInvalid("The signature does not fit this body, this secret or this time.")
    try:
        text = payload.decode()
        stripe.WebhookSignature.verify_header(
            text, signature, context.settings.stripe_webhook_secret, int(TOLERANCE.total_seconds())
        )
        times = [int(part[2:]) for part in signature.split(",") if part.startswith("t=")]
        signed = datetime.fromtimestamp(times[0], UTC)
    except (stripe.SignatureVerificationError, ValueError, IndexError, OverflowError, OSError, TypeError):
        raise refusal from None
    # The library checks the past only.
    if len(times) != 1 or signed > context.wall.now() + TOLERANCE:
        raise refusal


def _parse(payload: bytes, *, livemode: bool) -> tuple[WebhookEvent, str]:
    """The event, and the account id that its object carries when it is one of ours."""
    malformed = EventMalformed("This is not an event of Stripe's.")
    try:
        data: dict[str, Any] = json.loads(payload)
        thing: dict[str, Any] = data["data"]["object"]
        kind, event_id, created = data["type"], data["id"], data["created"]
        create_time = datetime.fromtimestamp(int(created), UTC)
        customer = thing["id"] if thing.get("object") == "customer" else thing.get("customer")
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError, OverflowError, OSError):
        raise malformed from None
    if bool(data.get("livemode")) != livemode:
        raise LivemodeMismatch("A test event reached a live installation, or the other way round.")
    if isinstance(customer, dict):
        customer = customer.get("id")
    if not isinstance(kind, str) or not isinstance(event_id, str) or not event_id.startswith("evt_"):
        raise malformed
    metadata = thing.get("metadata") or {}
    parent = ((thing.get("parent") or {}).get("subscription_details") or {}).get("metadata") or {}
    hint = metadata.get(ACCOUNT_KEY) or parent.get(ACCOUNT_KEY) or thing.get("client_reference_id") or ""
    event = WebhookEvent(
        id=event_id,
        type=kind,
        customer_id=customer if isinstance(customer, str) else "",
        invoice_id=thing["id"] if thing.get("object") == "invoice" and isinstance(thing.get("id"), str) else "",
        payload=payload,
        charge_id=_charge_of(thing) if kind in HANDLED else "",
        create_time=create_time,
    )
    return event, hint if isinstance(hint, str) else ""


def _charge_of(thing: dict[str, Any]) -> str:
    """The charge that is given back, of a charge, refund or dispute."""
    charge = thing.get("id") if thing.get("object") == "charge" else thing.get("charge")
    if isinstance(charge, dict):
        charge = charge.get("id")
    return charge if isinstance(charge, str) and thing.get("object") in {"charge", "refund", "dispute"} else ""
