"""The settings of all services as this environment gives them, and what must never be printed of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from services.billing.settings import BillingSettings
from services.doctor.finding import Finding
from services.kit import config
from services.notify.settings import NotifySettings
from services.quota.settings import QuotaSettings

_FIX = "set it where the services run; in local mode: set -a; . .tollway/env; set +a"


@dataclass(frozen=True)
class Surroundings:
    """None: a service's settings cannot be read, which is a finding of its own."""

    billing: BillingSettings | None
    quota: QuotaSettings | None
    notify: NotifySettings | None

    def dsns(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.billing is not None:
            found["billing"] = self.billing.billing_dsn
        if self.quota is not None:
            found["quota"] = self.quota.quota_dsn.get_secret_value()
        if self.notify is not None:
            found["notify"] = self.notify.notify_dsn.get_secret_value()
        return found

    @property
    def nats_url(self) -> str:
        known = next((each for each in (self.billing, self.quota, self.notify) if each is not None), None)
        return known.nats_url if known else ""

    def redacted(self, text: str) -> str:
        """The text without what is secret in the settings, whoever wrote it."""
        for secret in sorted(set(self._secrets()), key=len, reverse=True):
            text = text.replace(secret, "…")
        return " ".join(text.split())

    def _secrets(self) -> Iterator[str]:
        if self.billing is not None:
            yield from (self.billing.stripe_api_key, self.billing.stripe_webhook_secret, self.billing.secret_key)
        tokens = (each.rpc_token for each in (self.billing, self.quota, self.notify) if each is not None)
        yield from (token for token in tokens if token)
        urls = [*self.dsns().values(), self.nats_url]
        if self.notify is not None:
            urls.append(self.notify.smtp_url.get_secret_value())
        for url in urls:
            if password := urlsplit(url).password:
                yield from (url, password, unquote(password))


def read() -> tuple[Surroundings, list[Finding]]:
    billing, billings = _settings(BillingSettings, "billing")
    quota, quotas = _settings(QuotaSettings, "quota")
    notify, notifys = _settings(NotifySettings, "notify")
    return Surroundings(billing, quota, notify), [*billings, *quotas, *notifys]


def _settings(kind: type[config.S], service: str) -> tuple[config.S | None, list[Finding]]:
    check = f"settings of {service}"
    try:
        return config.read(kind), [Finding.ok(check, "complete")]
    except config.Wrong as wrong:
        return None, [Finding.fail(check, problem, _FIX) for problem in wrong.problems]
