"""What every use case is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from services.billing.catalog import Catalog
from services.billing.events import Announcer
from services.billing.ports import Payments, SignInMail, Usage
from services.billing.settings import BillingSettings
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.webhooks import Claimed, Heard, Ingested
from services.billing.vault import Vault
from services.kit.clock import Clock


@dataclass(frozen=True)
class Context:
    settings: BillingSettings
    catalog: Catalog
    announcer: Announcer
    payments: Payments
    usage: Usage
    sign_in_mail: SignInMail
    vault: Vault
    business: Clock  # periods and grace: moves in local mode
    wall: Clock  # signatures, tokens, rate limits: never moves
    unit_of_work: Callable[[], BillingUnitOfWork]
    marked: Callable[[], None]  # wakes the sync worker
    later: Callable[[Coroutine[Any, Any, None]], None]  # starts work that goes on after its answer
    # A claim for an account that is marked just now, when the sync worker has room; and what it is told once the claim
    # is committed.
    new_claim: Callable[[], str | None] = lambda: None
    claimed: Callable[[Claimed, str], None] = lambda claimed, claim: None
    # Stores an event together with others that come at the same moment; None: each alone.
    together: Callable[[Heard], Awaitable[Ingested]] | None = None
