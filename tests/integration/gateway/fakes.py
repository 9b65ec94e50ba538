"""Billing and quota in a few lines each, obeying the contract in protos/, on real gRPC servers."""

# ruff: noqa: N802 (gRPC's method names)

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.kit import correlation, errors
from tollway.billing.v1 import account_pb2, auth_pb2, billing_pb2, webhook_pb2
from tollway.billing.v1.account_pb2_grpc import AccountServiceServicer
from tollway.billing.v1.auth_pb2_grpc import AuthServiceServicer
from tollway.billing.v1.billing_pb2_grpc import BillingServiceServicer
from tollway.billing.v1.webhook_pb2_grpc import WebhookServiceServicer
from tollway.quota.v1 import kill_switch_pb2, quota_pb2
from tollway.quota.v1.kill_switch_pb2_grpc import KillSwitchServiceServicer
from tollway.quota.v1.quota_pb2_grpc import QuotaServiceServicer


@dataclass
class Fault:
    """What the next calls do instead of their work, by method; and what they were asked."""

    errors: dict[str, Exception] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    entered: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    calls: Counter[str] = field(default_factory=Counter)
    asked: dict[str, Any] = field(default_factory=dict)
    working_for: dict[str, str] = field(default_factory=dict)  # the id of the request, as a log line here would have it

    async def enter(self, method: str, request: Any) -> None:
        self.calls[method] += 1
        self.entered[method].set()
        self.asked[method] = request
        self.working_for[method] = correlation.request_id.get()
        await asyncio.sleep(self.delays.get(method, 0))
        if method in self.errors:
            raise self.errors[method]


class SigningKey:
    def __init__(self, kid: str) -> None:
        self.kid = kid
        self.private = Ed25519PrivateKey.generate()

    def public(self, **more: Any) -> dict[str, Any]:
        raw = self.private.public_key().public_bytes_raw()
        x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid, "x": x} | more

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode(claims, self.private, algorithm="EdDSA", headers={"kid": self.kid, **header})


class Billing(AccountServiceServicer, AuthServiceServicer, BillingServiceServicer, WebhookServiceServicer):
    def __init__(self, issuer: str, signing: list[SigningKey] | None = None) -> None:
        self.issuer = issuer
        self.fault = Fault()
        self.accounts: dict[str, account_pb2.Account] = {}
        self.keys: dict[str, str] = {}
        self.scopes = ["billing", "usage"]
        self.signed_up: dict[str, account_pb2.CreateAccountResponse] = {}
        self.states: dict[str, billing_pb2.Billing] = {}
        self.signing = signing or [SigningKey("k1")]
        self.events: list[bytes] = []

    def new_account(self, name: str = "Ada", email: str = "ada@example.com") -> tuple[str, str]:
        """(account id, API key)."""
        account_id, key = f"acct_{uuid.uuid4().hex}", f"sk_live_{uuid.uuid4().hex}x"
        self.accounts[account_id] = account_pb2.Account(id=account_id, slug="ada", name=name, email=email)
        self.keys[key] = account_id
        self.states[account_id] = billing_pb2.Billing(account_id=account_id, tier="free", default_tier=True, version=1)
        return account_id, key

    def claims(self, account_id: str, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.issuer,
            "sub": account_id,
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "jti": uuid.uuid4().hex,
            "tier": self.states[account_id].tier,
            "version": 1,
            "scope": " ".join(self.scopes),
            "key_id": "key_1",
        } | more

    async def CreateAccount(self, request: Any, context: Any) -> account_pb2.CreateAccountResponse:
        await self.fault.enter("CreateAccount", request)
        if "@" not in request.email:
            raise errors.InvalidArgument("This is not an email address.", field="email")
        repeated = self.signed_up.get(request.request_id)
        if repeated is not None:
            if repeated.account.email != request.email:
                raise errors.AlreadyExists("Used before.", reason="IDEMPOTENCY_KEY_REUSED", field="request_id")
            return repeated
        account_id, key = self.new_account(request.name, request.email)
        made = account_pb2.CreateAccountResponse(account=self.accounts[account_id], api_key=key)
        if request.request_id:
            self.signed_up[request.request_id] = made
        return made

    def _principal(self, key: str) -> auth_pb2.Principal:
        if key not in self.keys:
            raise errors.Unauthenticated("No account has this API key.", reason="API_KEY_UNKNOWN")
        account_id = self.keys[key]
        return auth_pb2.Principal(
            account=self.accounts[account_id], key_id="key_1", key_kind="live", scopes=self.scopes, tier="free"
        )

    async def Authenticate(self, request: Any, context: Any) -> auth_pb2.AuthenticateResponse:
        await self.fault.enter("Authenticate", request)
        return auth_pb2.AuthenticateResponse(principal=self._principal(request.api_key))

    async def ExchangeToken(self, request: Any, context: Any) -> auth_pb2.ExchangeTokenResponse:
        await self.fault.enter("ExchangeToken", request)
        principal = self._principal(request.api_key)
        answer = auth_pb2.ExchangeTokenResponse(access_token=self.signing[0].sign(self.claims(principal.account.id)))
        answer.expires_in.FromTimedelta(timedelta(hours=1))
        return answer

    async def GetJwks(self, request: Any, context: Any) -> auth_pb2.GetJwksResponse:
        await self.fault.enter("GetJwks", request)
        return auth_pb2.GetJwksResponse(jwks_json=json.dumps({"keys": [key.public() for key in self.signing]}))

    async def ListPlans(self, request: Any, context: Any) -> billing_pb2.ListPlansResponse:
        await self.fault.enter("ListPlans", request)
        price = billing_pb2.Price(
            id="price_1", lookup_key="skytale_pro_month", unit_amount=2900, currency="usd", interval="month"
        )
        quota = billing_pb2.PlanQuota
        return billing_pb2.ListPlansResponse(
            product="Skytale",
            plans=[
                billing_pb2.Plan(
                    tier="free",
                    display_name="Free",
                    quotas=[quota(meter="messages", limit=100_000, period="month")],
                ),
                billing_pb2.Plan(
                    tier="pro",
                    display_name="Pro",
                    prices=[price],
                    quotas=[quota(meter="messages", limit=1_000_000, period="month")],
                ),
                billing_pb2.Plan(
                    tier="enterprise",
                    display_name="Enterprise",
                    contact_sales=True,
                    quotas=[quota(meter="messages", period="month")],
                ),
            ],
        )

    async def GetBilling(self, request: Any, context: Any) -> billing_pb2.GetBillingResponse:
        await self.fault.enter("GetBilling", request)
        return billing_pb2.GetBillingResponse(billing=self.states[request.account_id])

    async def CreateCheckout(self, request: Any, context: Any) -> billing_pb2.CreateCheckoutResponse:
        await self.fault.enter("CreateCheckout", request)
        if request.tier == "enterprise":
            raise errors.InvalidArgument(
                "This tier is sold by contract.",
                reason="CONTACT_SALES",
                field="tier",
                contact="mailto:contact@skytale.sh",
                secret="not for callers",
            )
        if request.tier != "pro":
            raise errors.InvalidArgument("There is no such tier.", reason="UNKNOWN_TIER", field="tier")
        if "evil" in request.success_url:
            raise errors.InvalidArgument("Not allowed.", reason="REDIRECT_NOT_ALLOWED", field="success_url")
        if not self.states[request.account_id].default_tier:
            raise errors.FailedPrecondition("There is a live subscription.", reason="ALREADY_SUBSCRIBED")
        return billing_pb2.CreateCheckoutResponse(session_id="cs_1", url="https://checkout.stripe.com/c/pay/cs_test_1")

    async def CreatePortalSession(self, request: Any, context: Any) -> billing_pb2.CreatePortalSessionResponse:
        await self.fault.enter("CreatePortalSession", request)
        if not self.states[request.account_id].stripe_customer_id:
            raise errors.FailedPrecondition("Nothing was bought yet.", reason="NO_CUSTOMER")
        return billing_pb2.CreatePortalSessionResponse(url="https://billing.stripe.com/p/session/1")

    async def IngestWebhook(self, request: Any, context: Any) -> webhook_pb2.IngestWebhookResponse:
        await self.fault.enter("IngestWebhook", request)
        if request.signature != "t=1,v1=good":
            raise errors.InvalidArgument("The signature does not match.", reason="SIGNATURE_INVALID")
        self.events.append(request.payload)
        return webhook_pb2.IngestWebhookResponse(event_id="evt_1")


class Quota(QuotaServiceServicer):
    """One monthly limit on `messages`, counted in memory."""

    RESETS = 4_102_444_800  # 2100-01-01T00:00:00Z

    def __init__(self) -> None:
        self.fault = Fault()
        self.limit: int | None = 10
        self.burst: int | None = None
        self.used: Counter[str] = Counter()
        self.granted: dict[tuple[str, str], int] = {}
        self.refusal = quota_pb2.Refusal(
            reason="message_quota_exceeded", http_status=402, detail="Used up.", billing_url="https://pay.example"
        )

    def _state(self, account_id: str) -> quota_pb2.LimitState:
        used = self.used[account_id]
        state = quota_pb2.LimitState(name="messages_per_month", used=used)
        if self.limit is not None:
            state.limit, state.remaining = self.limit, max(0, self.limit - used)
        state.reset_time.seconds = self.RESETS
        return state

    def _states(self, account_id: str) -> list[quota_pb2.LimitState]:
        """With `burst`, a rate before the quota."""
        states = [self._state(account_id)]
        if self.burst is not None:
            rate = quota_pb2.LimitState(name="burst", used=1, limit=self.burst, remaining=self.burst - 1)
            rate.window.FromSeconds(60)
            rate.reset_time.seconds = self.RESETS
            states.insert(0, rate)
        return states

    async def Consume(self, request: Any, context: Any) -> quota_pb2.ConsumeResponse:
        await self.fault.enter("Consume", request)
        if request.meter != "messages":
            raise errors.InvalidArgument("There is no such meter.", reason="UNKNOWN_METER", field="meter")
        account_id, key = request.account_id, (request.account_id, request.request_id)
        if request.request_id and key in self.granted:
            if self.granted[key] != request.amount:
                raise errors.AlreadyExists("Used before.", reason="IDEMPOTENCY_KEY_REUSED", field="request_id")
            decision = quota_pb2.Decision(allowed=True, replayed=True, limits=[self._state(account_id)], tier="free")
        elif self.limit is not None and self.used[account_id] + request.amount > self.limit:
            decision = quota_pb2.Decision(
                binding_limit="messages_per_month", refusal=self.refusal, limits=[self._state(account_id)], tier="free"
            )
            decision.retry_after.FromMilliseconds(90_500)
        else:
            self.used[account_id] += request.amount
            self.granted[key] = request.amount
            decision = quota_pb2.Decision(allowed=True, limits=self._states(account_id), tier="free", version=1)
        return quota_pb2.ConsumeResponse(decision=decision)

    async def GetUsage(self, request: Any, context: Any) -> quota_pb2.GetUsageResponse:
        await self.fault.enter("GetUsage", request)
        state = self._state(request.account_id)
        meter = quota_pb2.MeterUsage(meter="messages", used=state.used, limits=[state], reset_time=state.reset_time)
        if state.HasField("limit"):
            meter.limit, meter.remaining = state.limit, state.remaining
        return quota_pb2.GetUsageResponse(account_id=request.account_id, tier="free", version=1, meters=[meter])


class KillSwitches(KillSwitchServiceServicer):
    """The switch over every meter and one over `messages`, in memory."""

    def __init__(self) -> None:
        self.fault = Fault()
        self.stand = {"": kill_switch_pb2.KillSwitch()}

    async def SetKillSwitch(self, request: Any, context: Any) -> kill_switch_pb2.SetKillSwitchResponse:
        await self.fault.enter("SetKillSwitch", request)
        if request.meter not in {"", "messages"}:
            raise errors.InvalidArgument("There is no such meter.", reason="UNKNOWN_METER", field="meter")
        if request.enabled and not request.reason:
            raise errors.InvalidArgument("Say why it is thrown.", field="reason")
        switch = kill_switch_pb2.KillSwitch(meter=request.meter, enabled=request.enabled, reason=request.reason)
        switch.change_time.seconds = 4_102_444_800
        self.stand[request.meter] = switch
        return kill_switch_pb2.SetKillSwitchResponse(kill_switch=switch)

    async def GetKillSwitch(self, request: Any, context: Any) -> kill_switch_pb2.GetKillSwitchResponse:
        await self.fault.enter("GetKillSwitch", request)
        return kill_switch_pb2.GetKillSwitchResponse(kill_switches=[self.stand[name] for name in sorted(self.stand)])
