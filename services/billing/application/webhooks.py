"""Webhooks mark, a sync reads (DESIGN §4): here they are verified, stored once, and mark their account."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import stripe
import structlog

from services.billing.application.context import Context
from services.billing.application.sync import HOLD, PARALLEL
from services.billing.errors import EventMalformed, LivemodeMismatch, SignatureInvalid
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.billing.storage.webhooks import (
    FOREIGN,
    IGNORED,
    PENDING,
    Claimed,
    Heard,
    Ingested,
    NewEvent,
    WebhookEvent,
)
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


async def ingest_webhook(payload: bytes, signature: str, context: Context) -> Ingested:
    """Stores the event once by its id and marks its account, in one commit. Applying it comes after the answer."""
    _verify(payload, signature, context)
    return await store(payload, context)


async def store(payload: bytes, context: Context) -> Ingested:
    """As above, for what is known to be Stripe's."""
    heard = _parse(payload, livemode=context.settings.livemode)
    if context.together is not None:
        return await context.together(heard)
    (kept,) = await keep([heard], context)
    return kept


async def keep(heard: list[Heard], context: Context) -> list[Ingested]:
    """Stores events and marks their accounts, each account once, in one commit. Safe to repeat.

    Stripe sends all events of a checkout in the same instant: one by one they would wait for each other at the
    account's mark.
    """
    claims: list[tuple[Claimed, str]] = []
    async with context.unit_of_work() as uow:
        known = await uow.events.known([each.event.id for each in heard])
        unknown = {each.event.id: each for each in heard if each.event.id not in known}
        owners = await _owners(list(unknown.values()), uow)
        new = [_new(each, owners.get(event_id)) for event_id, each in unknown.items()]
        marks: dict[str, int] = {}
        for account_id in sorted({each.account_id for each in new if each.status == PENDING and each.account_id}):
            # In the same transaction, so that the sync need not look for the mark first.
            claim = context.new_claim() if len(claims) < PARALLEL else None
            claimed, is_ours = await uow.marks.want_claimed(account_id, claim, HOLD)
            marks[account_id] = claimed.wanted
            if is_ours and claim is not None:
                claims.append((claimed, claim))
        marked = [replace(each, mark=marks.get(each.account_id or "")) for each in new if each.status == PENDING]
        others = [each for each in new if each.status != PENDING]
        fresh = await uow.events.add([*marked, *others], now=context.wall.now()) if new else set()
        if fresh:  # else without a commit: the marks are taken back
            failpoint("billing.webhook.before_commit")
            await uow.commit()
    if fresh:
        failpoint("billing.webhook.after_commit")
        for claimed, claim in claims:
            context.claimed(claimed, claim)
        if len(claims) < len(marks) or any(each.account_id is None for each in marked):
            context.marked()
    for each in new:
        if each.event.id in fresh:
            telemetry.count("tollway_webhooks_total", 1, type=each.event.type, status=each.status)
    return _told(heard, fresh)


def _told(heard: list[Heard], fresh: set[str]) -> list[Ingested]:
    """Of two deliveries in one batch the first is new."""
    left = set(fresh)
    told = []
    for each in heard:
        told.append(Ingested(each.event.id, duplicate=each.event.id not in left))
        left.discard(each.event.id)
    return told


async def _owners(heard: list[Heard], uow: BillingUnitOfWork) -> dict[str, Account]:
    """Whose each event is, by the event's id."""
    customers = await uow.accounts.of_customers({each.event.customer_id for each in heard if each.event.customer_id})
    owners: dict[str, Account] = {}
    for each in sorted(heard, key=lambda each: each.account_hint):
        event = each.event
        account = customers.get(event.customer_id)
        if account is None and event.type in HANDLED and each.account_hint and event.customer_id:
            with contextlib.suppress(NotFound):
                hinted = await uow.accounts.get(each.account_hint)
                # Our own customer, whose id a crash kept us from noting. The first id is kept for ever.
                if await uow.accounts.set_customer(hinted.id, event.customer_id) == event.customer_id:
                    account = hinted
        if account is not None:
            owners[event.id] = account
    return owners


def _new(heard: Heard, account: Account | None) -> NewEvent:
    event = heard.event
    if event.type not in HANDLED:
        status = IGNORED
    elif not event.customer_id and not event.charge_id:
        status = FOREIGN
    else:
        status = PENDING
    if account is not None and account.erase_time is not None:
        # Stripe tells of the erasure itself, with what was erased.
        event = replace(event, payload=json.dumps({"id": event.id, "type": event.type, "erased": True}).encode())
    return NewEvent(event, status, account.id if account is not None else None, None)


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


def _parse(payload: bytes, *, livemode: bool) -> Heard:
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
    return Heard(event, hint if isinstance(hint, str) else "")


def _charge_of(thing: dict[str, Any]) -> str:
    """The charge that is given back, of a charge, refund or dispute."""
    charge = thing.get("id") if thing.get("object") == "charge" else thing.get("charge")
    if isinstance(charge, dict):
        charge = charge.get("id")
    return charge if isinstance(charge, str) and thing.get("object") in {"charge", "refund", "dispute"} else ""
