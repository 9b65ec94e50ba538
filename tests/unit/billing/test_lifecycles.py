"""All eight statuses by the three catalogs' maps: CONTRACT "Status → tier"."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.billing.catalog import load_catalog
from services.billing.catalog.model import STATUSES
from services.billing.domain.entitlement import new_account, resolve
from tests.unit.billing.test_entitlement import subscription

CATALOGS = {name: load_catalog(Path(f"catalogs/{name}.yaml")) for name in ("skytale", "vatly", "manashiki")}
BOUGHT = {"skytale": "pro", "vatly": "business", "manashiki": "paid"}
#                trialing    active      past_due    unpaid      paused      incomplete  incomplete_expired canceled
TIERS = {
    "skytale": ("pro", "pro", "pro", "free", "free", "free", "free", "free"),
    "vatly": ("business", "business", "business", "business", "free", "free", "free", "free"),
    "manashiki": ("paid", "paid", "past_due", "canceled", "canceled", "free", "free", "canceled"),
}
CASES = [(name, status, tier) for name, row in TIERS.items() for status, tier in zip(STATUSES, row, strict=True)]


@pytest.mark.parametrize(("product", "status", "tier"), CASES)
def test_each_status_leads_to_the_products_tier_after_paying_and_back(product: str, status: str, tier: str) -> None:
    catalog, known = CATALOGS[product], {"price_1": BOUGHT[product]}
    fresh = new_account("acct_1", catalog)
    active = resolve(catalog, fresh, [subscription("active", price="price_1")], known).entitlement
    assert active.tier == BOUGHT[product]
    now = resolve(catalog, active, [subscription(status, price="price_1")], known).entitlement
    assert (now.tier, now.status) == (tier, status)
    restored = resolve(catalog, now, [subscription("active", price="price_1")], known).entitlement
    assert replace(restored, version=0) == replace(active, version=0), "paying restores what was before"


@pytest.mark.parametrize(("product", "status", "tier"), CASES)
def test_an_override_wins_whatever_the_status_and_leaves_it_told(product: str, status: str, tier: str) -> None:
    catalog, known = CATALOGS[product], {"price_1": BOUGHT[product]}
    agreed = [name for name in catalog.tiers if name not in {tier, BOUGHT[product]}][-1]
    fresh = new_account("acct_1", catalog)
    read = [subscription(status, price="price_1")]
    state = resolve(catalog, fresh, read, known, override_tier=agreed).entitlement
    assert (state.tier, state.status, state.catalog_hash) == (agreed, status, catalog.fingerprint(agreed))
