"""Stripe: the key and its mode, its clock and ours, the webhook endpoint, events that failed, retries against grace."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from services.billing.application.webhooks import HANDLED
from services.billing.catalog import Catalog
from services.billing.settings import BillingSettings
from services.doctor.finding import Finding

API = "https://api.stripe.com"
SKEW_S, WORST_S = 5, 60  # Stripe's signatures are good for 300 s
_KEYS = "Stripe's dashboard, Developers → API keys"
_RETRIES = "Stripe's dashboard, Settings → Billing → Revenue recovery"


class Stripe:
    """Reads of Stripe's API, by hand: the doctor wants to see headers and refusals as they are."""

    def __init__(self, settings: BillingSettings, base: str = "") -> None:
        self._settings = settings
        self._client = httpx.AsyncClient(
            base_url=base or settings.stripe_api_base or API,
            headers={"Authorization": f"Bearer {settings.stripe_api_key}"},
            timeout=8,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def examine(self, catalog: Catalog | None) -> AsyncIterator[Finding]:
        sent = time.time()
        try:
            answer = await self._client.get("/v1/account")
        except httpx.HTTPError as error:
            told = f"it cannot be reached: {type(error).__name__}"
            yield Finding.fail("Stripe", told, "see that this machine may call api.stripe.com:443")
            return
        finding, usable = self._key(answer)
        yield finding
        yield _clock(answer.headers.get("date", ""), sent, time.time())
        if not usable:
            return
        yield self._mode()
        yield await self._endpoint()
        yield await self._failed_events()
        yield await self._retries(catalog)

    def _key(self, answer: httpx.Response) -> tuple[Finding, bool]:
        match answer.status_code:
            case 200:
                return Finding.ok("Stripe key", f"valid, of account {answer.json().get('id')}"), True
            case 401:
                fix = f"set STRIPE_API_KEY to a key from {_KEYS}"
                return Finding.fail("Stripe key", "Stripe does not know it", fix), False
            case 403:
                told = "it is restricted, and may not read the account"
                return Finding.warn(
                    "Stripe key", told, f"let it read the account, events, invoices and webhook endpoints: {_KEYS}"
                ), True
        return Finding.fail("Stripe", f"it answered {answer.status_code}", "try again; see status.stripe.com"), False

    def _mode(self) -> Finding:
        settings = self._settings
        mode = "live" if settings.livemode else "test"
        if settings.livemode and settings.local:
            fix = "take a test key (sk_test_…) for local mode"
            return Finding.fail("Stripe mode", "live, in local mode: real cards would be charged", fix)
        if not settings.livemode and not settings.local:
            told = "test: nobody is charged"
            return Finding.warn("Stripe mode", told, "set STRIPE_API_KEY to the live key before you sell")
        return Finding.ok("Stripe mode", mode)

    async def _list(self, path: str, **params: Any) -> list[dict[str, Any]] | int:
        """The first hundred, or the status of a refusal."""
        answer = await self._client.get(f"/v1/{path}", params={"limit": 100, **params})
        return list(answer.json()["data"]) if answer.status_code == 200 else answer.status_code

    async def _endpoint(self) -> Finding:
        check, settings = "webhook endpoint", self._settings
        if settings.local:
            return Finding.skip(check, "in local mode the sandbox, or `stripe listen`, knows where events go")
        url = f"{settings.public_url}/webhooks/stripe"
        found = await self._list("webhook_endpoints")
        if isinstance(found, int):
            return Finding.skip(check, f"the key may not read it ({found})")
        push = "tollway catalog push FILE makes it"
        there = next((each for each in found if each["url"] == url), None)
        if there is None:
            return Finding.fail(check, f"Stripe has none for {url}", push)
        if there["status"] != "enabled":
            return Finding.fail(check, f"{url} is {there['status']}", "enable it in Stripe's dashboard, Webhooks")
        missing = HANDLED - set(there["enabled_events"])
        if missing and "*" not in there["enabled_events"]:
            return Finding.fail(check, f"it does not send {', '.join(sorted(missing))}", f"{push} complete")
        return Finding.ok(check, f"{url} sends what counts")

    async def _failed_events(self) -> Finding:
        check = "events from Stripe"
        since = int(time.time() - timedelta(days=3).total_seconds())
        found = await self._list("events", delivery_success="false", **{"created[gte]": since})
        if isinstance(found, int):
            return Finding.skip(check, f"the key may not read them ({found})")
        failed = [each for each in found if each["type"] in HANDLED]
        if failed:
            told = f"{len(failed)}{'+' if len(found) == 100 else ''} of three days are not delivered yet"
            return Finding.warn(check, told, "see why in Stripe's dashboard, Webhooks; then: tollway reconcile")
        return Finding.ok(check, "all of three days were delivered")

    async def _retries(self, catalog: Catalog | None) -> Finding:
        """Stripe's API does not tell how long it retries. An invoice that failed shows when it is tried again."""
        check = "retries and grace"
        if catalog is None:
            return Finding.skip(check, "the catalog cannot be read")
        days = catalog.policies.grace_days
        found = await self._list("invoices", status="open")
        if isinstance(found, int):
            return Finding.skip(check, f"the key may not read invoices ({found})")
        later = [each for each in found if _retried_after(each, days)]
        by_hand = f"compare: the catalog's grace is {days} days, Stripe's retries are in {_RETRIES}"
        if later:
            told = f"Stripe tries {len(later)} invoices again later than the grace of {days} days"
            return Finding.warn(check, told, f"let Stripe retry for {days} days in {_RETRIES}, or change grace_days")
        if not any(each.get("attempt_count") for each in found):
            return Finding.skip(check, f"no failed invoice shows them; {by_hand}")
        return Finding.ok(check, f"no failed invoice is tried again after the grace of {days} days")


def _retried_after(invoice: dict[str, Any], days: int) -> bool:
    tried = invoice.get("next_payment_attempt")
    finalized = (invoice.get("status_transitions") or {}).get("finalized_at")
    if not invoice.get("attempt_count") or not tried or not finalized:
        return False
    return bool(tried > finalized + timedelta(days=days).total_seconds())


def _clock(date: str, sent: float, heard: float) -> Finding:
    """Against the answer's Date header, of whole seconds, between sending and hearing."""
    check = "clock"
    try:
        theirs: datetime = parsedate_to_datetime(date)
    except ValueError:
        return Finding.skip(check, "Stripe's answer has no date")
    at = theirs.timestamp()
    ahead = max(sent - (at + 1), 0) - max(at - heard, 0)
    if abs(ahead) <= SKEW_S:
        return Finding.ok(check, f"within {SKEW_S} s of Stripe's")
    told = f"this machine's is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} Stripe's"
    fix = "run a time service (NTP): signatures of webhooks are refused from 300 s on"
    return (Finding.fail if abs(ahead) > WORST_S else Finding.warn)(check, told, fix)
