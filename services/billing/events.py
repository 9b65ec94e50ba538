"""The events that billing announces, made from its state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from services.billing.catalog import Catalog
from services.billing.catalog import Limit as CatalogLimit
from services.billing.catalog.model import Refusal as CatalogRefusal
from services.billing.domain.entitlement import Entitlement
from services.billing.domain.refund import Seen
from services.billing.domain.subscription import Invoice, Subscription
from services.billing.ports import Upcoming
from services.billing.storage.accounts import Account
from services.billing.storage.keys import ApiKey
from tollway.billing.v1 import entitlement_pb2 as pb
from tollway.billing.v1 import events_pb2, recipient_pb2

_KINDS = {
    "rate": pb.LIMIT_KIND_RATE,
    "quota": pb.LIMIT_KIND_QUOTA,
    "cap": pb.LIMIT_KIND_CAP,
    "concurrency": pb.LIMIT_KIND_CONCURRENCY,
}
_PERIODS = {
    "month": pb.PERIOD_MONTH,
    "billing_period": pb.PERIOD_BILLING,
    "lifetime": pb.PERIOD_LIFETIME,
    None: pb.PERIOD_UNSPECIFIED,
}
_ORDER = {"rate": 0, "quota": 1, "cap": 2, "concurrency": 3}  # DESIGN §5: the order of the decision


def timestamp(instant: datetime | None) -> Timestamp | None:
    if instant is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp


@dataclass(frozen=True)
class Announcer:
    """Makes the contract's messages from state: the catalog gives limits and brand, `public_url` the links."""

    catalog: Catalog
    public_url: str

    def entitlements(self, state: Entitlement, change_time: datetime) -> pb.Entitlements:
        """The resolved snapshot: all that a service needs to decide, with no catalog of its own."""
        gates = dict.fromkeys(self.catalog.gates, False)
        allowances: dict[str, int | str] = {}
        for tier in self.catalog.lineage(state.tier):
            gates |= tier.gates
            allowances |= tier.allowances
        # Of keys only billing knows how many there are.
        keys = {kind.allowance for kind in self.catalog.key_kinds.values()}
        return pb.Entitlements(
            account_id=state.account_id,
            version=state.version,
            tier=state.tier,
            status=state.status,
            period_anchor=timestamp(state.period_anchor),
            period_interval=state.period_interval,
            catalog_hash=state.catalog_hash,
            change_time=timestamp(change_time),
            meters=[self._meter(name, state.tier) for name in self.catalog.meters],
            limits=self.limits(state.tier),
            gates=gates,
            allowances={
                name: count for name, count in allowances.items() if isinstance(count, int) and name not in keys
            },
            # Of everybody's accounts: quota keeps one plan for all that are on it.
            billing_url=f"{self.public_url}/dash",
            support_contact=self.catalog.product.contact,
        )

    def _tier_name(self, tier: str) -> str:
        return self.catalog.tiers[tier].name if tier in self.catalog.tiers else ""

    def limits(self, tier: str) -> list[pb.Limit]:
        """The tier's, in the order in which they are decided."""
        numbers: dict[str, int | str] = {}
        for each in self.catalog.lineage(tier):
            numbers |= each.limits
        named = ((name, limit) for name, limit in self.catalog.limits.items() if name in numbers)
        ordered = sorted(named, key=lambda pair: _ORDER[pair[1].kind])
        return [_limit(name, limit, numbers[name]) for name, limit in ordered]

    def _meter(self, name: str, tier: str) -> pb.Meter:
        meter = self.catalog.meters[name]
        overage = next((t.overage[name] for t in reversed(self.catalog.lineage(tier)) if name in t.overage), None)
        return pb.Meter(
            name=name,
            gate=meter.gate or "",
            gate_refusal=_refusal(meter.gate_refusal) if meter.gate_refusal else None,
            on_store_down=pb.ON_STORE_DOWN_ALLOW if meter.on_store_down == "allow" else pb.ON_STORE_DOWN_DENY,
            overage_unit_price=overage.unit_price if overage else "",
            currency=overage.currency if overage else "",
            included_units=overage.included if overage else 0,
            suspended_refusal=_refusal(meter.suspended) if meter.suspended else None,
        )

    def entitlements_changed(
        self, state: Entitlement, change_time: datetime, *, snapshot: bool = False
    ) -> events_pb2.EntitlementsChanged:
        return events_pb2.EntitlementsChanged(entitlements=self.entitlements(state, change_time), snapshot=snapshot)

    def tier_changed(self, state: Entitlement, previous: str, change_time: datetime) -> events_pb2.TierChanged:
        return events_pb2.TierChanged(
            account_id=state.account_id,
            version=state.version,
            previous_tier=previous,
            tier=state.tier,
            status=state.status,
            change_time=timestamp(change_time),
        )

    def invoice_paid(self, account: Account, invoice: Invoice, now: datetime) -> events_pb2.InvoicePaid:
        return events_pb2.InvoicePaid(
            invoice=self._invoice(account, invoice), paid_time=timestamp(invoice.paid_time or now)
        )

    def invoice_payment_failed(
        self, account: Account, invoice: Invoice, first_failure: datetime, *, action_required: bool
    ) -> events_pb2.InvoicePaymentFailed:
        days = self.catalog.policies.grace_days
        return events_pb2.InvoicePaymentFailed(
            invoice=self._invoice(account, invoice),
            attempt_count=invoice.attempt_count,
            next_attempt_time=timestamp(invoice.next_attempt_time),
            grace_days=days,
            grace_end_time=timestamp(first_failure + timedelta(days=days)) if days else None,
            action_required=action_required,
        )

    def refunded(self, account: Account, seen: Seen, invoice_number: str) -> events_pb2.InvoiceRefunded:
        return events_pb2.InvoiceRefunded(
            account_id=account.id,
            refund_id=seen.id,
            invoice_id=seen.invoice_id,
            invoice_number=invoice_number,
            amount=seen.amount,
            currency=seen.currency,
            by_policy=bool(seen.policy_refund_id),
            refund_time=timestamp(seen.create_time),
            contact_email=account.contact_email,
            customer_email=account.email,
            account_name=account.name,
            brand=self.brand(account),
        )

    def trial_ending(
        self, account: Account, subscription: Subscription, tier: str, end: datetime, upcoming: Upcoming | None
    ) -> events_pb2.TrialEnding:
        return events_pb2.TrialEnding(
            account_id=account.id,
            subscription_id=subscription.id,
            tier=tier,
            tier_name=self._tier_name(tier),
            trial_end_time=timestamp(end),
            amount_due=upcoming.amount_due if upcoming is not None else None,
            currency=upcoming.currency if upcoming is not None else "",
            ends_subscription=subscription.ends_by_itself,
            contact_email=account.contact_email,
            customer_email=account.email,
            account_name=account.name,
            brand=self.brand(account),
        )

    def cancellation_scheduled(
        self, account: Account, subscription: Subscription, tier: str, end: datetime
    ) -> events_pb2.SubscriptionCanceled:
        event = self._canceled(account, subscription, tier, end)
        event.phase = events_pb2.CANCELLATION_PHASE_SCHEDULED
        return event

    def subscription_ended(
        self, account: Account, subscription: Subscription, tier: str, end: datetime, next_tier: str
    ) -> events_pb2.SubscriptionCanceled:
        event = self._canceled(account, subscription, tier, end)
        event.phase = events_pb2.CANCELLATION_PHASE_ENDED
        event.next_tier = next_tier
        return event

    def _canceled(
        self, account: Account, subscription: Subscription, tier: str, end: datetime
    ) -> events_pb2.SubscriptionCanceled:
        return events_pb2.SubscriptionCanceled(
            account_id=account.id,
            subscription_id=subscription.id,
            tier=tier,
            tier_name=self._tier_name(tier),
            end_time=timestamp(end),
            reason=subscription.cancel_reason,
            contact_email=account.contact_email,
            customer_email=account.email,
            account_name=account.name,
            brand=self.brand(account),
        )

    def account_erased(self, account_id: str, erase_time: datetime) -> events_pb2.AccountErased:
        return events_pb2.AccountErased(account_id=account_id, erase_time=timestamp(erase_time))

    def disputed(self, account: Account, seen: Seen) -> events_pb2.InvoiceDisputed:
        return events_pb2.InvoiceDisputed(
            account_id=account.id,
            dispute_id=seen.id,
            invoice_id=seen.invoice_id,
            amount=seen.amount,
            currency=seen.currency,
            reason=seen.reason,
            status=seen.status,
            dispute_time=timestamp(seen.create_time),
        )

    def brand(self, account: Account | None = None) -> events_pb2.Brand:
        """With the billing page of the account, or the one that lists a person's accounts."""
        return events_pb2.Brand(
            name=self.catalog.brand_name,
            support_contact=self.catalog.product.contact,
            color=self.catalog.brand.color,
            billing_url=f"{self.public_url}/dash/{account.slug}/billing" if account else f"{self.public_url}/dash",
            sender=self.catalog.brand.sender or "",
        )

    def recipient(self, account: Account, state: Entitlement) -> recipient_pb2.Recipient:
        return recipient_pb2.Recipient(
            account_id=account.id,
            account_name=account.name,
            contact_email=account.contact_email,
            customer_email=account.email,
            brand=self.brand(account),
            tier_name=self._tier_name(state.tier),
            limits=self.limits(state.tier),
        )

    def _invoice(self, account: Account, invoice: Invoice) -> events_pb2.Invoice:
        return events_pb2.Invoice(
            id=invoice.id,
            account_id=account.id,
            number=invoice.number,
            amount_due=invoice.amount_due,
            amount_paid=invoice.amount_paid,
            currency=invoice.currency,
            hosted_invoice_url=invoice.hosted_url,
            invoice_pdf_url=invoice.pdf_url,
            subscription_id=invoice.subscription_id,
            contact_email=account.contact_email,
            customer_email=invoice.customer_email or account.email,
            account_name=account.name,
            brand=self.brand(account),
            billing_reason=invoice.billing_reason,
            create_time=timestamp(invoice.create_time),
        )


def key_issued(key: ApiKey) -> events_pb2.KeyIssued:
    return events_pb2.KeyIssued(
        account_id=key.account_id,
        key_id=key.id,
        kind=key.kind,
        key_hash=key.hash,
        create_time=timestamp(key.create_time),
    )


def key_revoked(key: ApiKey) -> events_pb2.KeyRevoked:
    """For a key that has an end; after a rotation it lies ahead."""
    return events_pb2.KeyRevoked(
        account_id=key.account_id,
        key_id=key.id,
        kind=key.kind,
        key_hash=key.hash,
        revoke_time=timestamp(key.revoke_time),
    )


def _refusal(refusal: CatalogRefusal) -> pb.Refusal:
    return pb.Refusal(reason=refusal.reason, http_status=refusal.status, detail=refusal.detail)


def _limit(name: str, limit: CatalogLimit, number: int | str) -> pb.Limit:
    message = pb.Limit(
        name=name,
        meters=limit.meters,
        kind=_KINDS[limit.kind],
        period=_PERIODS[limit.period],
        refusal=_refusal(limit.refusal),
        warn_percent=sorted(limit.warn_percent),
    )
    if isinstance(number, int):
        message.limit = number
    if limit.kind == "rate":
        message.window.FromSeconds(limit.window_seconds or 60)
        message.scope = pb.RATE_SCOPE_KEY if limit.scope == "key" else pb.RATE_SCOPE_ACCOUNT
    elif limit.window_seconds is not None:
        message.window.FromSeconds(limit.window_seconds)
    return message
