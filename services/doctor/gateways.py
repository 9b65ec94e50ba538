"""The gateway as people reach it, and the secret with which it believes Stripe."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx

from services.billing.settings import BillingSettings
from services.doctor.finding import Finding
from services.kit.config import LOOPBACK


async def examine(settings: BillingSettings) -> AsyncIterator[Finding]:
    for finding in _safe(settings):
        yield finding
    url = settings.public_url
    async with httpx.AsyncClient(base_url=url, timeout=8) as client:
        try:
            ready = await client.get("/readyz")
        except httpx.HTTPError as error:
            fix = "see that the gateway runs, and that TOLLWAY_PUBLIC_URL is where people reach it"
            yield Finding.fail("gateway", f"{url} cannot be reached: {type(error).__name__}", fix)
            return
        yield _ready(url, ready)
        if ready.status_code == 200:
            yield await _secret(settings, client)


def _ready(url: str, answer: httpx.Response) -> Finding:
    if answer.status_code == 200:
        return Finding.ok("gateway", f"{url} is ready")
    try:
        services = answer.json()["services"]
        away = ", ".join(name for name, state in services.items() if state != "ok")
    except (ValueError, KeyError, AttributeError):
        return Finding.fail(
            "gateway", f"{url} answers {answer.status_code}: it is no gateway", "check TOLLWAY_PUBLIC_URL"
        )
    return Finding.fail("gateway", f"it does not reach {away}", "see that it runs, and its address in the settings")


async def _secret(settings: BillingSettings, client: httpx.AsyncClient) -> Finding:
    """Something that is no event, well signed: who believes the signature complains of the rest, and stores nothing."""
    check, payload = "webhook secret", b"{}"
    if not settings.stripe_webhook_secret.startswith("whsec_"):
        fix = "Stripe shows it with the endpoint, in its dashboard, Webhooks"
        return Finding.fail(check, "STRIPE_WEBHOOK_SECRET does not begin with whsec_", fix)
    stamp = int(time.time())
    key = settings.stripe_webhook_secret.encode()
    digest = hmac.new(key, f"{stamp}.".encode() + payload, hashlib.sha256).hexdigest()
    headers = {"Stripe-Signature": f"t={stamp},v1={digest}", "Content-Type": "application/json"}
    try:
        answer = await client.post("/webhooks/stripe", content=payload, headers=headers)
        code = str(answer.json().get("code"))
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        return Finding.skip(check, f"the gateway does not say: {type(error).__name__}")
    if code == "event_malformed":
        return Finding.ok(check, "the running services have the same")
    if code == "signature_invalid":
        return Finding.fail(check, "the running services have another one", "restart them with this environment")
    return Finding.skip(check, f"the gateway answers {code}")


def _safe(settings: BillingSettings) -> list[Finding]:
    """What must not be so beyond one's own machine."""
    found: list[Finding] = []
    parts = urlsplit(settings.public_url)
    mine = parts.hostname in LOOPBACK
    if settings.local:
        if mine:
            found.append(Finding.ok("local mode", "on this machine only"))
        else:
            fix = "unset TOLLWAY_LOCAL: in local mode an API key counts as its owner's session"
            found.append(Finding.fail("local mode", f"it is on, and {parts.hostname} is not this machine", fix))
        return found
    if parts.scheme != "https" and not mine:
        fix = "put TLS before the gateway, and https:// into TOLLWAY_PUBLIC_URL"
        found.append(Finding.fail("TLS", "TOLLWAY_PUBLIC_URL is http: keys and sessions cross the network", fix))
    else:
        found.append(Finding.ok("TLS", settings.public_url))
    how = "mutual TLS" if settings.tls_ca and settings.tls_cert else "a token"
    if how == "a token" and len(settings.rpc_token) < 32:
        found.append(Finding.warn("calls between services", "TOLLWAY_RPC_TOKEN is short", "openssl rand -hex 32"))
    else:
        found.append(Finding.ok("calls between services", f"by {how}"))
    operator = os.environ.get("TOLLWAY_OPERATOR_TOKEN") or os.environ.get("TOLLWAY_OPERATOR_TOKEN_FILE")
    if not operator:
        fix = "set TOLLWAY_OPERATOR_TOKEN where the gateway runs (openssl rand -hex 32)"
        found.append(Finding.warn("operator", "no token is set here: `tollway admin` may be off", fix))
    else:
        found.append(Finding.ok("operator", "has a token"))
    return found
