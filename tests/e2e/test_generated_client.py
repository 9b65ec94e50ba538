"""A client that a generator makes of /openapi.json, with no hand on it, drives the API from sign-up to paid."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.e2e.world import World, until
from tests.infra.stack import Stack

NAME = "tollway_generated_client"


class Generated:
    """The generated package: `generated("api.usage.count_use")` is a module of it."""

    def __call__(self, module: str) -> Any:
        return importlib.import_module(f"{NAME}.{module}")

    @asynccontextmanager
    async def client(self, world: World, token: str = "") -> AsyncIterator[Any]:
        kinds = self("client")
        given = {"base_url": world.stack.gateway_url, "timeout": 20}
        async with kinds.AuthenticatedClient(token=token, **given) if token else kinds.Client(**given) as client:
            yield client

    @property
    def models(self) -> ModuleType:
        return importlib.import_module(f"{NAME}.models")


@pytest.fixture(scope="module")
def generated(system: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    """Fails when the generator warns: it leaves out what it does not understand."""
    folder = tmp_path_factory.mktemp("generated")
    document, config = folder / "openapi.json", folder / "config.yaml"
    document.write_bytes(httpx.get(f"{system.gateway_url}/openapi.json", trust_env=False).content)
    config.write_text(json.dumps({"post_hooks": []}))  # formatting it would be for readers
    command = [
        *(sys.executable, "-c", "from openapi_python_client.cli import app; app()", "generate", "--fail-on-warning"),
        *("--path", str(document), "--config", str(config), "--meta", "none", "--output-path", str(folder / NAME)),
    ]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    yield Generated()
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


async def test_it_signs_up_counts_is_refused_and_pays(world: World, generated: Generated) -> None:
    async with AsyncExitStack() as clients:
        await _sign_up_to_paid(world, generated, clients)


async def _sign_up_to_paid(world: World, generated: Generated, clients: AsyncExitStack) -> None:
    models, email = generated.models, "generated@example.com"
    anyone = await clients.enter_async_context(generated.client(world))
    signed_up = await generated("api.accounts.sign_up").asyncio(
        client=anyone, body=models.SignUp(email=email, name="Generated"), idempotency_key="generated-1"
    )
    assert isinstance(signed_up, models.SignedUp)
    client = await clients.enter_async_context(generated.client(world, signed_up.api_key))

    count = generated("api.usage.count_use")
    counted = await count.asyncio(client=client, body=models.Use(meter="messages", amount=99_999))
    assert isinstance(counted, models.Counted)
    assert (counted.used, counted.remaining, counted.limits[0].kind) == (99_999, 1, models.LimitKind.QUOTA)
    refused = await count.asyncio_detailed(client=client, body=models.Use(meter="messages", amount=2))
    assert refused.status_code == 402
    assert isinstance(refused.parsed, models.UsageRefused)
    assert (refused.parsed.used, refused.parsed.limit, refused.parsed.code) == (99_999, 100_000, refused.parsed.reason)
    unknown = await count.asyncio(client=client, body=models.Use(meter="nope"))
    assert isinstance(unknown, models.FieldProblem)
    assert (unknown.code, unknown.field) == ("unknown_meter", "meter")

    token = await generated("api.tokens.exchange_token").asyncio(client=client)
    by_token = await clients.enter_async_context(generated.client(world, token.access_token))
    usage = await generated("api.usage.list_usage").asyncio(client=by_token)
    assert [(meter.meter, meter.used) for meter in usage.meters] == [("messages", 99_999)]

    plans = await generated("api.plans.list_plans").asyncio(client=anyone)
    (sold,) = (plan.tier for plan in plans.plans if plan.prices)
    checkout = await generated("api.billing.open_checkout").asyncio(
        client=client, body=models.SkytaleCheckoutBody(tier=sold)
    )
    form = {"email": email, "cardNumber": "4242424242424242", "cardExpiry": "12 / 34", "cardCvc": "123"}
    paid = await world.sandbox.post(checkout.checkout_url, data=form | {"billingName": "Ada"})
    assert paid.status_code == 303

    async def billing() -> Any:
        return await generated("api.billing.read_billing").asyncio(client=client)

    status = await until(billing, lambda found: found.plan == sold)
    assert (status.status, status.cancel_at_period_end) == ("active", False)
    portal = await generated("api.billing.open_portal").asyncio(client=client, body=models.SkytalePortalBody())
    assert portal.portal_url.startswith("http")


async def test_it_manages_keys_and_hears_no_of_strangers(world: World, generated: Generated) -> None:
    customer, models = await world.sign_up("Key Holder"), generated.models
    slug = customer.account["slug"]
    async with generated.client(world, customer.key) as client:
        issued = await generated("api.keys.issue_key").asyncio(slug, client=client, body=models.NewKey("live", "CI"))
        assert isinstance(issued, models.IssuedKey)
        rotated = await generated("api.keys.rotate_key").asyncio(
            slug, issued.id, client=client, body=models.Rotation(0)
        )
        assert rotated.replaced.id == issued.id
        listed = await generated("api.keys.list_keys").asyncio(slug, client=client, page_size=10)
        assert {key.id for key in listed.keys} >= {issued.id, rotated.id}
        gone = await generated("api.keys.revoke_key").asyncio(slug, rotated.id, client=client)
        assert gone.status == models.KeyStatus.REVOKED
        stranger = await generated("api.orgs.list_members").asyncio_detailed("somebody-elses", client=client)
        assert (stranger.status_code, stranger.parsed.code) == (404, "account_not_found")
