"""Proto ⇄ command: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing import events
from services.billing.application import accounts, auth, checkout, plans, principals, webhooks
from services.billing.application.context import Context
from services.billing.catalog import Price
from services.billing.grpc_customer import CustomerService
from services.billing.grpc_device import DeviceLoginService
from services.billing.grpc_identity import AuditService, IdentityService, KeyService, principal_message
from services.billing.grpc_invoices import InvoiceService
from services.billing.grpc_operator import OperatorService
from services.billing.grpc_outbox import OutboxService
from services.billing.grpc_recipient import RecipientService
from services.billing.grpc_reconcile import ReconcileService
from services.billing.grpc_refunds import RefundService
from services.billing.grpc_sign_in import SignInService
from services.billing.grpc_subscription import SubscriptionService
from services.kit.rpc import Server
from tollway.billing.v1 import (
    account_pb2,
    account_pb2_grpc,
    audit_pb2_grpc,
    auth_pb2,
    auth_pb2_grpc,
    billing_pb2,
    billing_pb2_grpc,
    customer_pb2_grpc,
    device_pb2_grpc,
    entitlement_pb2,
    entitlement_pb2_grpc,
    identity_pb2_grpc,
    invoice_pb2_grpc,
    key_pb2_grpc,
    operator_pb2_grpc,
    outbox_pb2_grpc,
    recipient_pb2_grpc,
    reconcile_pb2_grpc,
    refund_pb2_grpc,
    sign_in_pb2_grpc,
    subscription_pb2_grpc,
    webhook_pb2,
    webhook_pb2_grpc,
)

Rpc = grpc.aio.ServicerContext[Any, Any]


class AccountService(account_pb2_grpc.AccountServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def CreateAccount(  # noqa: N802 - the contract's name
        self, request: account_pb2.CreateAccountRequest, context: Rpc
    ) -> account_pb2.CreateAccountResponse:
        command = accounts.CreateAccount(request.email, request.name, request.request_id, request.remote_address)
        return await accounts.create_account(command, self._context)

    async def GetAccount(  # noqa: N802
        self, request: account_pb2.GetAccountRequest, context: Rpc
    ) -> account_pb2.GetAccountResponse:
        found = await accounts.get_account(request.account_id, self._context)
        return account_pb2.GetAccountResponse(account=accounts.account_message(found))


class AuthService(auth_pb2_grpc.AuthServiceServicer):
    def __init__(self, context: Context, keys: auth.SigningKeys) -> None:
        self._context = context
        self._keys = keys

    async def Authenticate(  # noqa: N802
        self, request: auth_pb2.AuthenticateRequest, context: Rpc
    ) -> auth_pb2.AuthenticateResponse:
        owner = await auth.authenticate(request.api_key, self._context)
        principal = principals.of_key(owner, self._context)
        return auth_pb2.AuthenticateResponse(principal=principal_message(principal))

    async def ExchangeToken(  # noqa: N802
        self, request: auth_pb2.ExchangeTokenRequest, context: Rpc
    ) -> auth_pb2.ExchangeTokenResponse:
        token = await auth.exchange_token(request.api_key, self._context, self._keys)
        response = auth_pb2.ExchangeTokenResponse(access_token=token)
        response.expires_in.FromTimedelta(auth.TOKEN_LIFE)
        return response

    async def GetJwks(  # noqa: N802
        self, request: auth_pb2.GetJwksRequest, context: Rpc
    ) -> auth_pb2.GetJwksResponse:
        return auth_pb2.GetJwksResponse(jwks_json=await self._keys.jwks())


class BillingService(billing_pb2_grpc.BillingServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def ListPlans(  # noqa: N802
        self, request: billing_pb2.ListPlansRequest, context: Rpc
    ) -> billing_pb2.ListPlansResponse:
        return await plans.list_plans(self._context)

    async def GetBilling(  # noqa: N802
        self, request: billing_pb2.GetBillingRequest, context: Rpc
    ) -> billing_pb2.GetBillingResponse:
        found = await plans.get_billing(request.account_id, self._context)
        state = found.entitlement
        return billing_pb2.GetBillingResponse(
            billing=billing_pb2.Billing(
                account_id=state.account_id,
                tier=state.tier,
                status=state.status,
                current_period_end=events.timestamp(state.period_end),
                cancel_at_period_end=state.cancel_at_period_end,
                stripe_customer_id=found.stripe_customer_id,
                stripe_subscription_id=state.subscription_id,
                version=state.version,
                grace_end_time=events.timestamp(found.grace_end_time),
                default_tier=found.default_tier,
                tier_name=found.tier.name,
                tier_description=found.tier.description,
                live_subscription=found.live,
                trial_end_time=events.timestamp(found.trial_end_time),
                price=_price_message(found.price) if found.price else None,
            )
        )

    async def CreateCheckout(  # noqa: N802
        self, request: billing_pb2.CreateCheckoutRequest, context: Rpc
    ) -> billing_pb2.CreateCheckoutResponse:
        command = checkout.CreateCheckout(
            request.account_id,
            request.tier,
            request.success_url,
            request.cancel_url,
            request.request_id,
            request.price_id,
        )
        session = await checkout.create_checkout(command, self._context)
        return billing_pb2.CreateCheckoutResponse(
            session_id=session.id, url=session.url, expire_time=events.timestamp(session.expire_time)
        )

    async def CreatePortalSession(  # noqa: N802
        self, request: billing_pb2.CreatePortalSessionRequest, context: Rpc
    ) -> billing_pb2.CreatePortalSessionResponse:
        url = await checkout.create_portal_session(request.account_id, request.return_url, self._context)
        return billing_pb2.CreatePortalSessionResponse(url=url)


class WebhookService(webhook_pb2_grpc.WebhookServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def IngestWebhook(  # noqa: N802
        self, request: webhook_pb2.IngestWebhookRequest, context: Rpc
    ) -> webhook_pb2.IngestWebhookResponse:
        done = await webhooks.ingest_webhook(request.payload, request.signature, self._context)
        return webhook_pb2.IngestWebhookResponse(event_id=done.event_id, duplicate=done.duplicate)


class EntitlementService(entitlement_pb2_grpc.EntitlementServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def BatchGetEntitlements(  # noqa: N802
        self, request: entitlement_pb2.BatchGetEntitlementsRequest, context: Rpc
    ) -> entitlement_pb2.BatchGetEntitlementsResponse:
        found = await plans.batch_get_entitlements(list(request.account_ids), self._context)
        return entitlement_pb2.BatchGetEntitlementsResponse(entitlements=found)

    async def ListEntitlements(  # noqa: N802
        self, request: entitlement_pb2.ListEntitlementsRequest, context: Rpc
    ) -> entitlement_pb2.ListEntitlementsResponse:
        return await plans.list_entitlements(request.page_size, request.page_token, self._context)


def _price_message(price: Price) -> billing_pb2.Price:
    """Of the catalog: without an id."""
    return billing_pb2.Price(
        lookup_key=price.lookup_key, unit_amount=price.amount, currency=price.currency, interval=price.interval
    )


def add_services(server: Server, context: Context, keys: auth.SigningKeys) -> None:
    """Registers every service of billing's contract."""
    package = "tollway.billing.v1"
    server.add(
        account_pb2_grpc.add_AccountServiceServicer_to_server, AccountService(context), f"{package}.AccountService"
    )
    server.add(auth_pb2_grpc.add_AuthServiceServicer_to_server, AuthService(context, keys), f"{package}.AuthService")
    server.add(
        billing_pb2_grpc.add_BillingServiceServicer_to_server, BillingService(context), f"{package}.BillingService"
    )
    server.add(
        webhook_pb2_grpc.add_WebhookServiceServicer_to_server, WebhookService(context), f"{package}.WebhookService"
    )
    server.add(
        entitlement_pb2_grpc.add_EntitlementServiceServicer_to_server,
        EntitlementService(context),
        f"{package}.EntitlementService",
    )
    server.add(
        identity_pb2_grpc.add_IdentityServiceServicer_to_server, IdentityService(context), f"{package}.IdentityService"
    )
    server.add(
        device_pb2_grpc.add_DeviceLoginServiceServicer_to_server,
        DeviceLoginService(context),
        f"{package}.DeviceLoginService",
    )
    server.add(key_pb2_grpc.add_KeyServiceServicer_to_server, KeyService(context), f"{package}.KeyService")
    server.add(audit_pb2_grpc.add_AuditServiceServicer_to_server, AuditService(context), f"{package}.AuditService")
    server.add(refund_pb2_grpc.add_RefundServiceServicer_to_server, RefundService(context), f"{package}.RefundService")
    server.add(
        operator_pb2_grpc.add_OperatorServiceServicer_to_server, OperatorService(context), f"{package}.OperatorService"
    )
    server.add(
        subscription_pb2_grpc.add_SubscriptionServiceServicer_to_server,
        SubscriptionService(context),
        f"{package}.SubscriptionService",
    )
    server.add(
        reconcile_pb2_grpc.add_ReconcileServiceServicer_to_server,
        ReconcileService(context),
        f"{package}.ReconcileService",
    )
    server.add(
        invoice_pb2_grpc.add_InvoiceServiceServicer_to_server, InvoiceService(context), f"{package}.InvoiceService"
    )
    server.add(sign_in_pb2_grpc.add_SignInServiceServicer_to_server, SignInService(context), f"{package}.SignInService")
    server.add(
        customer_pb2_grpc.add_CustomerServiceServicer_to_server, CustomerService(context), f"{package}.CustomerService"
    )
    server.add(outbox_pb2_grpc.add_OutboxServiceServicer_to_server, OutboxService(context), f"{package}.OutboxService")
    server.add(
        recipient_pb2_grpc.add_RecipientServiceServicer_to_server,
        RecipientService(context),
        f"{package}.RecipientService",
    )
    server.add(
        invoice_pb2_grpc.add_InvoiceServiceServicer_to_server,
        InvoiceService(context),
        f"{package}.InvoiceService",
    )
    server.add(sign_in_pb2_grpc.add_SignInServiceServicer_to_server, SignInService(context), f"{package}.SignInService")
