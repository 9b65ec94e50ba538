"""The services behind the gateway: one link each, and the stubs that routes call."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from gateway.settings import GatewaySettings
from services.kit.rpc import Link
from tollway.billing.v1.account_pb2_grpc import AccountServiceStub
from tollway.billing.v1.audit_pb2_grpc import AuditServiceStub
from tollway.billing.v1.auth_pb2_grpc import AuthServiceStub
from tollway.billing.v1.billing_pb2_grpc import BillingServiceStub
from tollway.billing.v1.customer_pb2_grpc import CustomerServiceStub
from tollway.billing.v1.device_pb2_grpc import DeviceLoginServiceStub
from tollway.billing.v1.entitlement_pb2_grpc import EntitlementServiceStub
from tollway.billing.v1.identity_pb2_grpc import IdentityServiceStub
from tollway.billing.v1.invoice_pb2_grpc import InvoiceServiceStub
from tollway.billing.v1.key_pb2_grpc import KeyServiceStub
from tollway.billing.v1.operator_pb2_grpc import OperatorServiceStub
from tollway.billing.v1.outbox_pb2_grpc import OutboxServiceStub
from tollway.billing.v1.reconcile_pb2_grpc import ReconcileServiceStub
from tollway.billing.v1.refund_pb2_grpc import RefundServiceStub
from tollway.billing.v1.sign_in_pb2_grpc import SignInServiceStub
from tollway.billing.v1.subscription_pb2_grpc import SubscriptionServiceStub
from tollway.billing.v1.webhook_pb2_grpc import WebhookServiceStub
from tollway.notify.v1.notify_pb2_grpc import NotifyServiceStub
from tollway.quota.v1.guardrail_pb2_grpc import GuardrailServiceStub
from tollway.quota.v1.kill_switch_pb2_grpc import KillSwitchServiceStub
from tollway.quota.v1.lease_pb2_grpc import LeaseServiceStub
from tollway.quota.v1.outbox_pb2_grpc import OutboxServiceStub as QuotaOutboxServiceStub
from tollway.quota.v1.quota_pb2_grpc import QuotaServiceStub

STRIPE_CALL_S = 30.0  # calls that make billing call Stripe, which may take its time


class Backend:
    """Routes call `await backend.billing.call(backend.plans.ListPlans, request)`; errors arrive by name."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.billing = Link(settings.billing_addr, settings)
        self.quota = Link(settings.quota_addr, settings)
        self.notify = Link(settings.notify_addr, settings)
        self.accounts = AccountServiceStub(self.billing.channel)
        self.auth = AuthServiceStub(self.billing.channel)
        self.identity = IdentityServiceStub(self.billing.channel)
        self.coming_in = SignInServiceStub(self.billing.channel)
        self.devices = DeviceLoginServiceStub(self.billing.channel)
        self.keys = KeyServiceStub(self.billing.channel)
        self.invoices = InvoiceServiceStub(self.billing.channel)
        self.audit = AuditServiceStub(self.billing.channel)
        self.plans = BillingServiceStub(self.billing.channel)
        self.operators = OperatorServiceStub(self.billing.channel)
        self.customers = CustomerServiceStub(self.billing.channel)
        self.outbox = OutboxServiceStub(self.billing.channel)
        self.subscriptions = SubscriptionServiceStub(self.billing.channel)
        self.reconciling = ReconcileServiceStub(self.billing.channel)
        self.refunds = RefundServiceStub(self.billing.channel)
        self.entitlements = EntitlementServiceStub(self.billing.channel)
        self.webhooks = WebhookServiceStub(self.billing.channel)
        self.messages = NotifyServiceStub(self.notify.channel)
        self.usage = QuotaServiceStub(self.quota.channel)
        self.quota_outbox = QuotaOutboxServiceStub(self.quota.channel)
        self.leases = LeaseServiceStub(self.quota.channel)
        self.guardrails = GuardrailServiceStub(self.quota.channel)
        self.switches = KillSwitchServiceStub(self.quota.channel)

    async def health(self) -> dict[str, bool]:
        """Whether each service says that it serves, within a second."""
        links = {"billing": self.billing, "quota": self.quota, "notify": self.notify}
        answers = await asyncio.gather(*(link.healthy() for link in links.values()))
        return dict(zip(links, answers, strict=True))

    async def close(self) -> None:
        await asyncio.gather(self.billing.close(), self.quota.close(), self.notify.close())


async def _backend(request: Request) -> Backend:  # async, as every dependency here: others run on a thread each
    backend: Backend = request.app.state.backend
    return backend


Services = Annotated[Backend, Depends(_backend)]
