"""The doctor on a healthy system, and on one whose every setting is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from local import ports
from tests.infra.stack import Stack

_CLI = [sys.executable, "-m", "tollway.cli.main", "doctor"]
_SECRETS = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD)$")


def _doctor(home: Path, env: dict[str, str], *words: str, code: int) -> str:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TOLLWAY_", "STRIPE_", "CATALOG"))
    }
    given = kept | {"XDG_CONFIG_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "80"} | env
    done = subprocess.run([*_CLI, *words], env=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def _states(told: str) -> dict[str, str]:
    return {check["check"]: check["state"] for check in json.loads(told)["checks"]}


def _assert_no_secret(told: str, env: dict[str, str]) -> None:
    secrets = {value for name, value in env.items() if _SECRETS.search(name) and len(value) > 8}
    secrets |= {str(urlsplit(value).password) for name, value in env.items() if name.endswith("_DSN")}
    assert secrets
    for secret in secrets:
        assert secret not in told


def test_a_healthy_system_is_found_healthy_and_told_in_80_columns(stack: Stack, tmp_path: Path) -> None:
    told = _doctor(tmp_path, {}, "--env-file", str(stack.folder / "state" / "env"), code=0)
    assert max(map(len, told.splitlines())) <= 80
    assert "FAIL" not in told
    for line in (
        "Stripe key",
        "webhook secret",
        "catalog at Stripe",
        "prices in billing",
        "schema of billing",
        "stream TOLLWAY",
        "mail server",
    ):
        assert re.search(rf"^ok +{line} ", told, re.MULTILINE), told
    _assert_no_secret(told, stack.env)


def test_everything_that_is_wrong_is_found_at_once_with_what_to_do(stack: Stack, tmp_path: Path) -> None:
    env = dict(stack.env)
    nobody = f"127.0.0.1:{ports.reserve()}"
    wrong: dict[str, Any] = {
        "STRIPE_WEBHOOK_SECRET": "whsec_" + "0" * 32,
        "TOLLWAY_BILLING_DSN": re.sub(r":[^:@/]+@", ":wrong@", env["TOLLWAY_BILLING_DSN"]),
        "TOLLWAY_QUOTA_DSN": "",
        "TOLLWAY_NATS_URL": f"nats://{nobody}",
        "TOLLWAY_SMTP_URL": f"smtp://{nobody}",
        "CATALOG": str(Path("catalogs/manashiki.yaml").resolve()),
    }
    told = _doctor(tmp_path, env | wrong, "--json", code=1)
    states = _states(told)
    assert {name for name, state in states.items() if state == "fail"} == {
        "settings of quota",
        "catalog at Stripe",
        "database of billing",
        "NATS",
        "mail server",
        "webhook secret",
    }
    for check in json.loads(told)["checks"]:
        assert bool(check["fix"]) == (check["state"] in {"fail", "warn"}), check
    assert "TOLLWAY_QUOTA_DSN: is required" in told
    _assert_no_secret(told, env | wrong)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_must_not_be_beyond_ones_own_machine_is_named(stack: Stack, tmp_path: Path, scheme: str) -> None:
    """As in production: no local mode, an address of its own; nobody answers there."""
    nowhere = f"{scheme}://tollway.invalid"
    only = {name: value for name, value in stack.env.items() if name.startswith("STRIPE_") or name == "CATALOG"}
    env = only | {
        "STRIPE_API_KEY": "sk_test_" + "0" * 24,
        "TOLLWAY_LOCAL": "" if scheme == "https" else "1",
        "TOLLWAY_PUBLIC_URL": nowhere,
        "TOLLWAY_RPC_TOKEN": "short",
        "TOLLWAY_SECRET_KEY": "0" * 32,
        "TOLLWAY_BILLING_DSN": "postgresql+asyncpg://nobody@127.0.0.1:9/none",
        "STRIPE_API_BASE": only["STRIPE_API_BASE"] if scheme == "http" else "",
        # Nothing outside this machine is asked by a test.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    states = _states(_doctor(tmp_path, env, "--json", code=1))
    assert states["gateway"] == "fail"
    if scheme == "http":
        assert states["local mode"] == "fail"
        assert states["database of billing"] == "fail"
    else:
        assert states["Stripe"] == "fail"
        assert (states["TLS"], states["calls between services"], states["operator"]) == ("ok", "warn", "warn")
