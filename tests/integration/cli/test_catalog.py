"""`tollway catalog check` and `push` as an operator calls them, against a real database and the Stripe sandbox."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.infra.processes import Sandbox, running_sandbox
from tests.integration.cli.conftest import TOLLWAY

Catalog = Callable[..., "subprocess.CompletedProcess[str]"]
CATALOG = Path("catalogs/manashiki.yaml")


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    folder = tmp_path / "sandbox"
    folder.mkdir()
    with running_sandbox(folder) as running:
        yield running


@pytest.fixture
def catalog(sandbox: Sandbox, billing_database: str) -> Catalog:
    env = {
        **os.environ,
        "TOLLWAY_LOCAL": "1",
        "TOLLWAY_BILLING_DSN": billing_database,
        "TOLLWAY_SECRET_KEY": "0" * 32,
        "STRIPE_API_KEY": sandbox.api_key,
        "STRIPE_WEBHOOK_SECRET": sandbox.webhook_secret,
        "STRIPE_API_BASE": sandbox.url,
        "NO_COLOR": "1",
    }

    return partial(_run, env)


def _run(env: dict[str, str], *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [*TOLLWAY, "catalog", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done


def _there(sandbox: Sandbox, kind: str) -> list[dict[str, object]]:
    answer = httpx.get(f"{sandbox.url}/v1/{kind}?limit=100", auth=(sandbox.api_key, ""), trust_env=False)
    return list(answer.json()["data"])


def test_a_dry_run_shows_all_that_a_push_then_does_and_does_nothing(catalog: Catalog, sandbox: Sandbox) -> None:
    shown = catalog("push", str(CATALOG), "--dry-run").stdout
    assert _there(sandbox, "products") == _there(sandbox, "prices") == _there(sandbox, "billing/meters") == []
    for line in (
        "create product tollway_manashiki_paid (Manashiki Developer)",
        "create price manashiki_developer_month (1500 usd a month)",
        "create meter tollway_manashiki_live_downloads",
        "create price manashiki_developer_month_live_downloads (0.1 usd a unit after 1000)",
        "create the portal's configuration",
    ):
        assert line in shown.splitlines()
    assert catalog("push", str(CATALOG)).stdout == shown
    assert {price["lookup_key"] for price in _there(sandbox, "prices")} == {
        "manashiki_developer_month",
        "manashiki_developer_month_live_downloads",
    }


def test_pushing_again_finds_everything(catalog: Catalog, sandbox: Sandbox) -> None:
    catalog("push", str(CATALOG))
    before = {kind: _there(sandbox, kind) for kind in ("products", "prices", "billing/meters")}
    assert catalog("push", str(CATALOG)).stdout == "Manashiki: Stripe has everything already\n"
    assert catalog("push", str(CATALOG), "--dry-run").stdout == "Manashiki: Stripe has everything already\n"
    assert {kind: _there(sandbox, kind) for kind in before} == before


def test_another_amount_is_another_price_and_a_new_plan_can_be_changed_to(
    catalog: Catalog, sandbox: Sandbox, tmp_path: Path
) -> None:
    first, dearer = Path("catalogs/vatly.yaml"), tmp_path / "dearer.yaml"
    dearer.write_text(first.read_text().replace("amount: 2900", "amount: 3900"))
    catalog("push", str(first))
    (old,) = (p["id"] for p in _there(sandbox, "prices") if p["lookup_key"] == "vatly_business_month")
    shown = catalog("push", str(dearer), "--dry-run").stdout
    assert "create price vatly_business_month (3900 usd a month, instead of 2900 usd a month)" in shown
    assert "update the portal's configuration" in shown
    catalog("push", str(dearer))
    (new,) = (p for p in _there(sandbox, "prices") if p["lookup_key"] == "vatly_business_month")
    assert (new["id"] != old, new["unit_amount"]) == (True, 3900)
    (portal,) = (c for c in _there(sandbox, "billing_portal/configurations") if c["metadata"])
    offered = portal["features"]["subscription_update"]["products"]  # type: ignore[index]
    assert new["id"] in [price for product in offered for price in product["prices"]]
    assert catalog("push", str(dearer)).stdout == "Vatly: Stripe has everything already\n"


@pytest.mark.parametrize(
    ("line", "broken", "told"),
    [
        ("default_tier: free", "default_tier: fee", "default_tier: no tier is named fee"),
        ("  unpaid: keep", "  unpaid: kep", "lifecycle.unpaid: kep is neither price, keep nor a tier"),
        ("    inherits: business", "    inherits: busines", "tiers.scale.inherits: no tier is named busines"),
        ("  grace_days: 0", "  grace_days: soon", "policies.grace_days: Input should be a valid integer"),
        ("  grace_days: 0", "  grace_day: 0", "policies.grace_day: is not known here; check the spelling"),
        ("    prefix: vk_live_", "    prefix: VK", "key_kinds.live.prefix: String should match pattern"),
    ],
)
def test_a_broken_catalog_is_told_by_file_line_field_and_what_was_expected(
    tmp_path: Path, line: str, broken: str, told: str
) -> None:
    lines = Path("catalogs/vatly.yaml").read_text().splitlines()
    number = lines.index(line)
    lines[number] = broken
    file = tmp_path / "broken.yaml"
    file.write_text("\n".join(lines))
    assert f"{file}:{number + 1}: {told}" in _run(dict(os.environ), "check", str(file), code=4).stderr


def test_a_broken_catalog_is_not_pushed(catalog: Catalog, sandbox: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(CATALOG.read_text().replace("default_tier: free", "default_tier: fee"))
    assert "default_tier: no tier is named fee" in catalog("push", str(file), code=4).stderr
    assert _there(sandbox, "products") == []


def test_a_good_catalog_is_told_with_its_tiers_and_one_that_is_not_there_is_named() -> None:
    assert "3 tiers: free, business, scale" in _run(dict(os.environ), "check", "catalogs/vatly.yaml").stdout
    assert "nowhere.yaml: cannot be read" in _run(dict(os.environ), "check", "nowhere.yaml", code=4).stderr


def test_prices_that_were_sold_before_are_found_by_their_lookup_keys_with_their_own_products(
    catalog: Catalog, sandbox: Sandbox
) -> None:
    """Who comes from plain Stripe has products and prices already, named as the catalog names them."""
    with httpx.Client(base_url=sandbox.url, auth=(sandbox.api_key, ""), trust_env=False) as stripe:
        products = []
        for tier, amount in (("business", 2900), ("scale", 9900)):
            products.append(stripe.post("/v1/products", data={"name": f"Validation, {tier}"}).json()["id"])
            price = {"product": products[-1], "unit_amount": amount, "currency": "usd", "recurring[interval]": "month"}
            made = stripe.post("/v1/prices", data=price | {"lookup_key": f"vatly_{tier}_month"})
            assert made.status_code == 200, made.text
    shown = catalog("push", "catalogs/vatly.yaml", "--dry-run").stdout
    assert "create product" not in shown
    assert "create price" not in shown
    assert "create the portal's configuration" in shown
    assert catalog("push", "catalogs/vatly.yaml").stdout == shown
    assert {each["id"] for each in _there(sandbox, "products")} == set(products)
    prices = {each["product"]: [each["id"]] for each in _there(sandbox, "prices")}
    (portal,) = [each for each in _there(sandbox, "billing_portal/configurations") if not each["is_default"]]
    offered = portal["features"]["subscription_update"]["products"]  # type: ignore[index]
    assert {each["product"]: each["prices"] for each in offered} == prices
    assert catalog("push", "catalogs/vatly.yaml").stdout == "Vatly: Stripe has everything already\n"
