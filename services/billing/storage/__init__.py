"""Billing's database: the tables, one repository per noun, and the unit of work that binds them."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.storage.accounts import Accounts, SignUps
from services.billing.storage.audit import AuditLog
from services.billing.storage.checkouts import Checkouts
from services.billing.storage.customers import CustomerPushes
from services.billing.storage.device_logins import DeviceLogins
from services.billing.storage.entitlements import Entitlements
from services.billing.storage.erasure import Erasure
from services.billing.storage.identity import Memberships, OutsideIdentities, Sessions, Users
from services.billing.storage.keys import ApiKeys
from services.billing.storage.metering import UsageTotals
from services.billing.storage.overrides import Overrides
from services.billing.storage.prices import Prices
from services.billing.storage.refunds import Refunds, Reversals
from services.billing.storage.secrets import IdempotentAnswers, SigningKeys
from services.billing.storage.sign_in import KeySessions, SignInAttempts, SignInLinks
from services.billing.storage.snapshots import Snapshots
from services.billing.storage.sweeps import Sweeps
from services.billing.storage.webhooks import Marks, WebhookEvents
from services.kit.database import UnitOfWork


class BillingUnitOfWork(UnitOfWork):
    """Everything billing reads and writes in one transaction."""

    def bind(self, connection: AsyncConnection) -> None:
        self.accounts = Accounts(connection)
        self.keys = ApiKeys(connection)
        self.users = Users(connection)
        self.memberships = Memberships(connection)
        self.sessions = Sessions(connection)
        self.device_logins = DeviceLogins(connection)
        self.key_sessions = KeySessions(connection)
        self.sign_in_links = SignInLinks(connection)
        self.sign_in_attempts = SignInAttempts(connection)
        self.outside = OutsideIdentities(connection)
        self.audit = AuditLog(connection)
        self.sign_ups = SignUps(connection)
        self.checkouts = Checkouts(connection)
        self.pushes = CustomerPushes(connection)
        self.erasure = Erasure(connection)
        self.entitlements = Entitlements(connection)
        self.prices = Prices(connection)
        self.signing_keys = SigningKeys(connection)
        self.answers = IdempotentAnswers(connection)
        self.refunds = Refunds(connection)
        self.reversals = Reversals(connection)
        self.overrides = Overrides(connection)
        self.totals = UsageTotals(connection)
        self.snapshots = Snapshots(connection)
        self.sweeps = Sweeps(connection)
        self.events = WebhookEvents(connection)
        self.marks = Marks(connection)


__all__ = ["BillingUnitOfWork"]
