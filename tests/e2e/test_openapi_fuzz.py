"""A fuzzer that reads only /openapi.json finds no answer that the document does not promise, on any catalog.

TOLLWAY_FUZZ_EXAMPLES sets how many requests it makes up per operation and phase. Unless it is set there are a few. Then
every operation, and the systematic walk over every bound of every field, has its turn on one catalog; on the others
those have it whose answers a catalog makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local.blocking import run_apart
from tests.infra.servers import running_nats
from tests.infra.stack import Stack, running_stack
from tests.invariants import healed

ROOT = Path(__file__).parents[2]
DEEPLY = "TOLLWAY_FUZZ_EXAMPLES" in os.environ
EXAMPLES = os.environ.get("TOLLWAY_FUZZ_EXAMPLES", "3")


PHASES = {"examples", "coverage", "fuzzing", "stateful"}
OF_A_CATALOG = r"^/(admin|api|v1/(usage|plans|billing|signup|orgs/\{slug\}/(billing|keys|caps)))"
CATALOGS = ("skytale", "vatly", "manashiki")


@pytest.fixture(scope="module", params=CATALOGS)
def catalog(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fuzzed(catalog: str, postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A system of its own: kill switches that the fuzzer throws must not meet other tests."""
    folder = tmp_path_factory.mktemp(catalog)
    given = {"CATALOG": f"catalogs/{catalog}.yaml"}
    with running_nats(folder) as nats, running_stack(folder, postgres=postgres, nats=nats, env=given) as running:
        yield running
        found = run_apart(healed(running))
        assert not found, "\n".join(found)


def credentials(stack: Stack) -> tuple[str, dict[str, str]]:
    """(slug, security scheme → credential). The key is of another account than the slug's, so that no revoking that
    the fuzzer tries ends what it fuzzes with."""
    with httpx.Client(base_url=stack.gateway_url, trust_env=False, timeout=20) as http:
        asked = {"user": "user_ada", "org": "org_ada", "role": "admin", "expires_in": 3600}
        token = httpx.post(f"{stack.issuer_url}/token", json=asked, trust_env=False).json()["token"]
        (org,) = http.get("/v1/orgs", headers={"Authorization": f"Bearer {token}"}).json()["orgs"]
        signed_up = http.post("/v1/signup", json={"email": "bob@example.com", "name": "Bob"})
        assert signed_up.status_code == 201, signed_up.text
    key = signed_up.json()["api_key"]
    return org["slug"], {"apiKey": key, "identityProvider": token, "operatorToken": stack.operator_token}


def test_the_fuzzer_finds_nothing(catalog: str, fuzzed: Stack, tmp_path: Path) -> None:
    slug, known = credentials(fuzzed)
    config = tmp_path / "schemathesis.toml"
    config.write_text(f'{(ROOT / "schemathesis.toml").read_text()}\n[parameters]\n"path.slug" = "{slug}"\n')
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{fuzzed.gateway_url}/openapi.json", "--checks", "all", "--max-examples", EXAMPLES),
        *("--phases", ",".join(PHASES if DEEPLY or catalog == CATALOGS[0] else PHASES - {"coverage"})),
        *("--request-timeout", "30", "--warnings", "off", "--no-color", "--generation-deterministic"),
    ]
    if not DEEPLY and catalog != CATALOGS[0]:
        command += ["--include-path-regex", OF_A_CATALOG]
    told = {"SCHEMATHESIS_HOOKS": "tests.e2e.fuzzing.hooks", "TOLLWAY_FUZZ_CREDENTIALS": json.dumps(known)}
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **told},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-5_000:]
