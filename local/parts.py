"""The parts of a local installation: how each is started, what it waits for, and how to tell that it is ready."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from local import nats, postgres, readiness
from local.settings import DATABASES, LocalSettings
from local.state import State

READY_WITHIN_S = 120.0


@dataclass(frozen=True)
class Part:
    """A process, or with an empty command something that runs elsewhere and is only checked."""

    name: str
    command: Callable[[], list[str]]
    ready: readiness.Check | None = None  # None: a one-shot, ready when it has ended well
    # Parts that must be ready before this one starts, and that stop after it.
    needs: tuple[str, ...] = ()
    # Parts that must not stop before it, though it can start without them.
    stops_before: tuple[str, ...] = ()
    # Variable → port, to say which variable moves a port that is taken.
    ports: dict[str, int] = field(default_factory=dict)
    address: str = ""
    stop_signal: signal.Signals = signal.SIGTERM
    # What it gets from the kernel when the supervisor is killed.
    orphan_signal: signal.Signals = signal.SIGKILL


def all_parts(settings: LocalSettings, state: State) -> list[Part]:
    """Every part of this installation, needed ones first."""
    ports = settings.ports
    services = [_service(name, settings) for name in DATABASES]
    gateway = Part(
        "gateway",
        _module("gateway.main"),
        # It answers only when the services behind it do, so it needs nothing in order to start.
        ready=readiness.http(ports["gateway"], "/readyz"),
        stops_before=DATABASES,
        ports=_ports(settings, "gateway"),
        address=f"http://127.0.0.1:{ports['gateway']}",
    )
    mailbox = Part(
        "mailbox",
        _module("local.mailbox", "--state", str(state.folder / "mailbox")),
        ready=readiness.every(readiness.http(ports["mailbox"], "/healthz"), readiness.smtp(ports["smtp"])),
        ports=_ports(settings, "mailbox", "smtp"),
        address=f"http://127.0.0.1:{ports['mailbox']}",
    )
    sandbox = Part(
        "sandbox",
        _module(
            "local.stripe_sandbox",
            "--port",
            str(ports["sandbox"]),
            "--state",
            str(state.folder / "sandbox"),
            "--webhook-url",
            # Not the public address, which may lead through a tunnel or not here at all.
            f"http://127.0.0.1:{ports['gateway']}/webhooks/stripe",
            "--business-name",
            _seller(settings.catalog),
        ),
        ready=readiness.http(ports["sandbox"], "/healthz"),
        ports=_ports(settings, "sandbox"),
        address=f"http://127.0.0.1:{ports['sandbox']}",
    )
    stripe = [] if settings.real_stripe else [sandbox]
    clerk = Part(
        "clerk",
        _module("local.clerk", "--state", str(state.folder / "clerk")),
        ready=readiness.http(ports["clerk"], "/healthz"),
        ports=_ports(settings, "clerk"),
        address=f"http://127.0.0.1:{ports['clerk']}",
    )
    clock = Part(
        "clock",
        _module("local.clock"),
        ready=readiness.http(ports["clock"], "/healthz"),
        ports=_ports(settings, "clock"),
        address=f"http://127.0.0.1:{ports['clock']}",
    )
    issuer = [clerk] if settings.clerk_is_ours else []
    push = Part(
        "catalog",
        _module("services.billing.push"),
        needs=("postgres",) if settings.real_stripe else ("postgres", "sandbox"),
        address=settings.catalog.name,
    )
    return [
        _postgres(settings, state),
        _nats(settings, state),
        mailbox,
        *stripe,
        *issuer,
        clock,
        push,
        *services,
        gateway,
    ]


def _postgres(settings: LocalSettings, state: State) -> Part:
    admin = settings.postgres_url
    port = settings.ports["postgres"]
    data = state.folder / "postgres"

    def command() -> list[str]:
        postgres.initialise(data, unquote(urlsplit(admin).password or ""))
        return postgres.command(data, port)

    ours = settings.postgres_is_ours
    return Part(
        "postgres",
        command if ours else list,
        ready=lambda: postgres.is_ready(admin, [f"{settings.database_prefix}_{name}" for name in DATABASES]),
        ports=_ports(settings, "postgres") if ours else {},
        address=admin.rpartition("@")[2].partition("/")[0],
        stop_signal=postgres.STOP_SIGNAL,
        orphan_signal=postgres.ORPHAN_SIGNAL,
    )


def _nats(settings: LocalSettings, state: State) -> Part:
    url, port, folder = settings.nats_url, settings.ports["nats"], state.folder / "nats"
    ours = settings.nats_is_ours
    return Part(
        "nats",
        (lambda: nats.command(nats.configure(folder, port))) if ours else list,
        ready=lambda: nats.is_ready(url),
        ports=_ports(settings, "nats") if ours else {},
        address=url.partition("://")[2].rpartition("@")[2],
        stop_signal=nats.STOP_SIGNAL,
        orphan_signal=nats.ORPHAN_SIGNAL,
    )


def _service(name: str, settings: LocalSettings) -> Part:
    return Part(
        name,
        _module(f"services.{name}.main"),
        ready=readiness.grpc_health(settings.ports[name]),
        needs=("postgres", "nats"),
        stops_before=("mailbox",) if settings.real_stripe else ("mailbox", "sandbox"),
        ports=_ports(settings, name, f"{name}_metrics"),
        address=f"127.0.0.1:{settings.ports[name]}",
    )


def _module(name: str, *arguments: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-m", name, *arguments]


def _ports(settings: LocalSettings, *names: str) -> dict[str, int]:
    return {settings.port_variable(name): settings.ports[name] for name in names}


def log_path(state: State, part: Part) -> Path:
    return state.logs / f"{part.name}.log"


def _seller(catalog: Path) -> str:
    """The product's name for the sandbox's pages. A catalog that cannot be read is billing's to refuse, in words."""
    try:
        return str(yaml.safe_load(catalog.read_text())["product"]["name"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return ""
