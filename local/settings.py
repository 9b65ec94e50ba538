"""What `make run` was told by the environment, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from local import postgres
from local.state import State

DATABASES = ("billing", "quota", "notify")

CLERK_PORT = 12112
CLOCK_PORT = 12113

_PORTS = {
    "gateway": 8080,
    "sandbox": 12111,
    "clerk": CLERK_PORT,
    "clock": CLOCK_PORT,
    "mailbox": 8025,
    "smtp": 1025,
    "billing": 7101,
    "quota": 7102,
    "notify": 7103,
    "billing_metrics": 7201,
    "quota_metrics": 7202,
    "notify_metrics": 7203,
    "nats": 14222,
    "postgres": 15432,
}


class SettingsError(ValueError):
    """One sentence per wrong setting; each names its variable."""


@dataclass(frozen=True)
class LocalSettings:
    """Where everything listens, and what every process is told."""

    ports: Mapping[str, int]
    postgres_url: str  # admin DSN
    postgres_is_ours: bool
    nats_url: str
    nats_is_ours: bool
    real_stripe: bool
    clerk_is_ours: bool
    catalog: Path
    database_prefix: str
    # A part that dies this often within 60 s stops everything.
    max_deaths: int
    # The longest pause before a part that died is started again; the pauses grow from 0.1 s.
    longest_delay_s: float
    environment: Mapping[str, str]

    @property
    def gateway_url(self) -> str:
        return self.environment["TOLLWAY_PUBLIC_URL"]

    def port_variable(self, name: str) -> str:
        return f"TOLLWAY_{name.upper()}_PORT"


def load(state: State, given: Mapping[str, str] = os.environ) -> LocalSettings:
    """Reads and checks the settings; makes the secrets. Raises SettingsError with all that is wrong."""
    wrong: list[str] = []
    ports = {name: _number(given, f"TOLLWAY_{name.upper()}_PORT", port, wrong) for name, port in _PORTS.items()}
    for name, port in ports.items():
        if twin := next((other for other in ports if other < name and ports[other] == port), None):
            wrong.append(f"TOLLWAY_{name.upper()}_PORT: {port} is also TOLLWAY_{twin.upper()}_PORT")
    if given.get("TOLLWAY_HOST") not in {None, "", "127.0.0.1"}:
        wrong.append("TOLLWAY_HOST: local mode binds 127.0.0.1 only; use deploy/ for anything else")
    catalog = Path(given.get("CATALOG") or "catalogs/skytale.yaml")
    if not catalog.is_file():
        wrong.append(f"CATALOG: there is no file {catalog}")
    real_stripe = _real_stripe(given, wrong)
    postgres_url = _url(given, "TOLLWAY_POSTGRES_URL", ("postgresql",), wrong)
    nats_url = _url(given, "TOLLWAY_NATS_URL", ("nats", "tls"), wrong)
    max_deaths = _number(given, "TOLLWAY_LOCAL_MAX_DEATHS", 5, wrong)
    longest_delay_ms = _number(given, "TOLLWAY_LOCAL_LONGEST_DELAY_MS", 5000, wrong)
    if wrong:
        raise SettingsError("\n".join(wrong))

    secrets = state.secrets()
    admin = postgres_url or postgres.admin_dsn(ports["postgres"], secrets["TOLLWAY_POSTGRES_PASSWORD"])
    prefix = given.get("TOLLWAY_DATABASE_PREFIX") or "tollway"
    environment = {
        "TOLLWAY_LOCAL": "1",
        "TOLLWAY_STATE": str(state.folder),
        "TOLLWAY_HOST": "127.0.0.1",
        "TOLLWAY_PUBLIC_URL": given.get("TOLLWAY_PUBLIC_URL") or f"http://127.0.0.1:{ports['gateway']}",
        "TOLLWAY_NATS_URL": nats_url or f"nats://127.0.0.1:{ports['nats']}",
        "TOLLWAY_SMTP_URL": given.get("TOLLWAY_SMTP_URL") or f"smtp://127.0.0.1:{ports['smtp']}",
        "CATALOG": str(catalog.resolve()),
        **{f"TOLLWAY_{name.upper()}_PORT": str(port) for name, port in ports.items()},
    }
    for name in DATABASES:
        environment[f"TOLLWAY_{name.upper()}_ADDR"] = f"127.0.0.1:{ports[name]}"
        environment[f"TOLLWAY_{name.upper()}_DSN"] = postgres.service_dsn(admin, f"{prefix}_{name}")
    for name in ("TOLLWAY_SECRET_KEY", "TOLLWAY_OPERATOR_TOKEN", "TOLLWAY_RPC_TOKEN"):
        if not _is_set(given, name):
            environment[name] = secrets[name]
    if not real_stripe:
        environment["STRIPE_API_KEY"] = secrets["STRIPE_API_KEY"]
        environment["STRIPE_WEBHOOK_SECRET"] = secrets["STRIPE_WEBHOOK_SECRET"]
        environment["STRIPE_API_BASE"] = f"http://127.0.0.1:{ports['sandbox']}"
        environment["TOLLWAY_CLOCK_FILE"] = str(state.folder / "clock-offset")
    clerk_is_ours = not _is_set(given, "TOLLWAY_CLERK_ISSUER")
    if clerk_is_ours:
        issuer = f"http://127.0.0.1:{ports['clerk']}"
        environment["TOLLWAY_CLERK_ISSUER"] = issuer
        environment["TOLLWAY_CLERK_JWKS_URL"] = f"{issuer}/.well-known/jwks.json"
        parties = given.get("TOLLWAY_CLERK_AUTHORIZED_PARTIES") or environment["TOLLWAY_PUBLIC_URL"]
        environment["TOLLWAY_CLERK_AUTHORIZED_PARTIES"] = parties
    return LocalSettings(
        ports=ports,
        postgres_url=admin,
        postgres_is_ours=postgres_url is None,
        nats_url=environment["TOLLWAY_NATS_URL"],
        nats_is_ours=nats_url is None,
        real_stripe=real_stripe,
        clerk_is_ours=clerk_is_ours,
        catalog=catalog,
        database_prefix=prefix,
        max_deaths=max_deaths,
        longest_delay_s=longest_delay_ms / 1000,
        environment=environment,
    )


def process_environment(settings: LocalSettings, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a child process gets: ours over the person's, and without what would contradict it."""
    kept = dict(given)
    for name in ("STRIPE_API_BASE", "TOLLWAY_CLOCK_FILE"):
        kept.pop(name, None)  # only the sandbox has them, and the real Stripe refuses a moved clock
    for name in settings.environment:
        kept.pop(f"{name}_FILE", None)
    return {**kept, **settings.environment, "PYTHONUNBUFFERED": "1"}


def _is_set(given: Mapping[str, str], name: str) -> bool:
    return bool(given.get(name) or given.get(f"{name}_FILE"))


def _number(given: Mapping[str, str], variable: str, default: int, wrong: list[str]) -> int:
    text = given.get(variable) or str(default)
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    wrong.append(f"{variable}: expected a number from 1 to 65535, got {text!r}")
    return default


def _url(given: Mapping[str, str], variable: str, schemes: tuple[str, ...], wrong: list[str]) -> str | None:
    text = given.get(variable)
    if not text:
        return None
    try:
        parts = urlsplit(text)
        if parts.scheme in schemes and parts.hostname and parts.port is not False:
            return text
    except ValueError:
        pass  # the text itself may hold a password, so it is not repeated
    wrong.append(f"{variable}: expected {schemes[0]}://host:port")
    return None


def _real_stripe(given: Mapping[str, str], wrong: list[str]) -> bool:
    names = ("STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET")
    there = [name for name in names if _is_set(given, name)]
    if len(there) == 1:
        missing = next(name for name in names if name not in there)
        wrong.append(f"{missing}: is required beside {there[0]} to use the real Stripe; unset both for the sandbox")
    if "STRIPE_API_KEY" in there and given.get("STRIPE_API_KEY", "").startswith(("sk_live_", "rk_live_")):
        wrong.append("STRIPE_API_KEY: local mode takes test keys only (sk_test_…): it must not move real money")
    return len(there) == 2
