"""The page on configuration: from the settings classes, and from every variable that the code names."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.settings import GatewaySettings
from local.settings import _PORTS as PORTS
from services.billing.settings import BillingSettings
from services.kit.config import Settings, variable
from services.notify.settings import NotifySettings
from services.quota.settings import QuotaSettings
from tools.references import Undescribed
from tools.references.markdown import code, joined, table

_OF: dict[str, type[Settings]] = {
    "billing": BillingSettings,
    "quota": QuotaSettings,
    "notify": NotifySettings,
    "the gateway": GatewaySettings,
}
_NAME = re.compile(r"TOLLWAY_[A-Z0-9_]*[A-Z0-9]|STRIPE_(?:API|WEBHOOK)_[A-Z_]*[A-Z]|CATALOG")
# Held as plain text by their class, and secrets all the same.
_SECRET = {"TOLLWAY_SECRET_KEY", "TOLLWAY_BILLING_DSN", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "TOLLWAY_RPC_TOKEN"}

# What reads the environment without a settings class. A variable that the code names must be here or there.
_CLI = {
    "TOLLWAY_API_URL": "The gateway that commands speak to. Else what `tollway signup` or `login` stored.",
    "TOLLWAY_API_KEY": "The API key that commands act with, instead of the stored one.",
    "TOLLWAY_OPERATOR_TOKEN": "What `tollway admin` and the other operators' commands show.",
    "TOLLWAY_NATS_URL": "Where `tollway events tail` listens.",
    "TOLLWAY_DEBUG": "`1`: a fault of the program shows its traceback.",
}
_LOCAL = {
    "CATALOG": "The catalog; `catalogs/skytale.yaml` unless set.",
    "TOLLWAY_STATE": "The folder of databases, mails, logs and secrets; `.tollway` unless set.",
    "STRIPE_API_KEY": "With `STRIPE_WEBHOOK_SECRET`: the real Stripe instead of the sandbox. Test keys only.",
    "STRIPE_WEBHOOK_SECRET": "See `STRIPE_API_KEY`.",
    "TOLLWAY_POSTGRES_URL": "A PostgreSQL of yours (`postgresql://admin:…@host:port/…`) instead of the embedded one.",
    "TOLLWAY_DATABASE_PREFIX": "Databases are called `<prefix>_billing`, …; `tollway` unless set.",
    "TOLLWAY_NATS_URL": "A NATS of yours with JetStream instead of the embedded one.",
    "TOLLWAY_CLERK_ISSUER": "An identity provider of yours instead of the stand-in.",
    "TOLLWAY_PUBLIC_URL": "Where browsers reach the gateway, if not at its port on 127.0.0.1.",
    "TOLLWAY_SMTP_URL": "A mail server instead of the mailbox.",
    "TOLLWAY_HOST": "Refused unless it is 127.0.0.1: local mode serves loopback only.",
    "TOLLWAY_LOCAL_MAX_DEATHS": "A part that dies this often within a minute stops everything; 5.",
    "TOLLWAY_LOCAL_LONGEST_DELAY_MS": "The longest pause before a part is started again; 5000.",
    "TOLLWAY_FAILPOINTS": "Tests only: the folder whose files make a process end itself at a named place.",
}
# Not settings: streams of NATS.
_NO_VARIABLES = {"TOLLWAY_DEAD"}


def page(root: Path) -> str:
    """Raises Undescribed for a variable that is named in the code and described nowhere."""
    _all_described(root)
    shared = list(Settings.model_fields)
    blocks = [
        "# Configuration",
        "Settings come from the environment. Each can come from a file instead: `NAME_FILE` names one, as secrets "
        "of containers are mounted; setting both is an error. An empty variable counts as not set. A process that "
        "lacks a setting, or has a wrong one, ends with exit code 78 and one line that names the variable.",
        "## Every process",
        _of(Settings, shared),
    ]
    for name, settings in _OF.items():
        own = [field for field in settings.model_fields if field not in shared]
        blocks += [f"## {name[0].upper()}{name[1:]}", _of(settings, own)]
    ports = [(code(f"TOLLWAY_{name.upper()}_PORT"), port) for name, port in PORTS.items()]
    blocks += [
        "## The command line",
        table(("Variable", "Meaning"), [(code(name), said) for name, said in _CLI.items()]),
        "## Local mode",
        "`make run` makes the settings above by itself and keeps its secrets in its state folder. It reads:",
        table(("Variable", "Meaning"), [(code(name), said) for name, said in _LOCAL.items()]),
        "Ports, all on 127.0.0.1:",
        table(("Variable", "Unless set"), ports),
    ]
    return joined(*blocks)


def _of(settings: type[Settings], fields: list[str]) -> str:
    rows = []
    for name in fields:
        field = settings.model_fields[name]
        rows.append((code(variable(settings, name)), _kind(settings, name), _default(field), field.description or ""))
    return table(("Variable", "Kind", "Unless set", "Meaning"), rows)


def _kind(settings: type[Settings], name: str) -> str:
    annotation: Any = settings.model_fields[name].annotation
    kinds = [each for each in get_args(annotation) if each is not type(None)] if _is_union(annotation) else [annotation]
    if kinds == [SecretStr] or variable(settings, name) in _SECRET:
        return "secret"
    return {bool: "1 or 0", int: "number", float: "number", Path: "file", str: "text"}[kinds[0]]


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, UnionType) or type(None) in get_args(annotation)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if value is None or value == "":
        return ""
    return code(int(value) if isinstance(value, bool) else value)


def _all_described(root: Path) -> None:
    known = {variable(settings, name) for settings in _OF.values() for name in settings.model_fields}
    known |= {f"TOLLWAY_{name.upper()}_{kind}" for name in PORTS for kind in ("PORT", "METRICS_PORT", "ADDR", "DSN")}
    known |= set(_CLI) | set(_LOCAL) | {"TOLLWAY_POSTGRES_PASSWORD"} | _NO_VARIABLES
    new = [
        f"{path} reads {name}"
        for name, path in sorted(named(root).items())
        if not {name, name.removesuffix("_FILE")} & known
    ]
    if new:
        raise Undescribed(f"{'; '.join(new)}: describe it in tools/references/settings.py")


def named(root: Path) -> dict[str, str]:
    """Every variable that a literal of the code is the name of, with a file that has it."""
    found: dict[str, str] = {}
    for top in ("services", "gateway", "local", "tollway/cli"):
        for path in sorted((root / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
                    found.setdefault(node.value, str(path.relative_to(root)))
    return found
