"""What the billing page shows, read from the services at once. Billing has to answer; without quota the page says that
usage cannot be shown right now, and the rest is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from fastapi import Request

from gateway.backend import Backend
from gateway.pages import meters, plan
from gateway.pages.visits import Visit, shop_of
from services.kit.errors import TollwayError
from tollway.billing.v1 import billing_pb2, entitlement_pb2, invoice_pb2, key_pb2
from tollway.quota.v1 import kill_switch_pb2, quota_pb2

INVOICES = 12
KEYS = 100


@dataclass(frozen=True)
class Suspension:
    """A kill switch that covers one of the account's meters, or all."""

    meter: str  # empty: every meter
    reason: str


@dataclass(frozen=True)
class Account:
    """The parts of the page that move by themselves."""

    shop: billing_pb2.ListPlansResponse
    billing: billing_pb2.Billing
    plan: plan.Plan
    usage: meters.Usage | None  # None: quota does not answer
    rates: list[str]
    suspensions: list[Suspension]
    entitled: entitlement_pb2.Entitlements


@dataclass(frozen=True)
class Key:
    """A key in the list. `status`: active, ending, revoked."""

    key: key_pb2.Key
    status: str


async def read(request: Request, visit: Visit) -> Account:
    backend: Backend = request.app.state.backend
    account_id = visit.account.id
    asked = entitlement_pb2.BatchGetEntitlementsRequest(account_ids=[account_id])
    shop, billed, entitled, usage, switches = await asyncio.gather(
        shop_of(request),
        backend.billing.call(backend.plans.GetBilling, billing_pb2.GetBillingRequest(account_id=account_id)),
        backend.billing.call(backend.entitlements.BatchGetEntitlements, asked),
        _usage(backend, account_id),
        _switches(backend),
    )
    entitlements = next(iter(entitled.entitlements), entitlement_pb2.Entitlements())
    return Account(
        shop=shop,
        billing=billed.billing,
        plan=plan.read(billed.billing, shop),
        usage=meters.read(entitlements, usage) if usage is not None else None,
        rates=meters.shared_rates(entitlements),
        suspensions=_suspensions(switches, {meter.name for meter in entitlements.meters}),
        entitled=entitlements,
    )


async def keys(request: Request, visit: Visit) -> list[Key]:
    """Newest first, of the revoked ones none; one more than KEYS when there are further ones."""
    backend: Backend = request.app.state.backend
    asked = key_pb2.ListKeysRequest(account_id=visit.account.id, page_size=1000)
    answer = await backend.billing.call(backend.keys.ListKeys, asked)
    now_ns = request.app.state.clock.now().timestamp() * 1e9
    found = []
    for key in answer.keys:
        ends = key.HasField("revoke_time")
        if not ends or key.revoke_time.ToNanoseconds() > now_ns:
            found.append(Key(key, "ending" if ends else "active"))
    return found[: KEYS + 1]


async def invoices(request: Request, visit: Visit) -> list[invoice_pb2.AccountInvoice]:
    """Newest first; one more than INVOICES when there are further ones."""
    backend: Backend = request.app.state.backend
    asked = invoice_pb2.ListInvoicesRequest(account_id=visit.account.id, page_size=INVOICES + 1)
    answer = await backend.billing.call(backend.invoices.ListInvoices, asked)
    return list(answer.invoices)


async def _usage(backend: Backend, account_id: str) -> quota_pb2.GetUsageResponse | None:
    try:
        return await backend.quota.call(backend.usage.GetUsage, quota_pb2.GetUsageRequest(account_id=account_id))
    except TollwayError:
        return None


async def _switches(backend: Backend) -> list[kill_switch_pb2.KillSwitch]:
    try:
        answer = await backend.quota.call(backend.switches.GetKillSwitch, kill_switch_pb2.GetKillSwitchRequest())
    except TollwayError:
        return []
    return list(answer.kill_switches)


def _suspensions(switches: Iterable[kill_switch_pb2.KillSwitch], ours: set[str]) -> list[Suspension]:
    thrown = [each for each in switches if each.enabled]
    return [Suspension(each.meter, each.reason) for each in thrown if not each.meter or each.meter in ours]
