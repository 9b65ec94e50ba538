"""Claims about catalogs/manashiki.yaml: each sentence of seeds/manashiki.txt that is data."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from services.billing.catalog import Catalog, CatalogError, load_catalog

FILE = Path("catalogs/manashiki.yaml")
DOWNLOADS = ["staging_downloads", "live_downloads"]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(FILE)


def gates(catalog: Catalog, gate: str) -> set[str]:
    return {tier for tier in catalog.tiers if catalog.gate_open(tier, gate)}


def number(catalog: Catalog, tier: str, limit: str) -> int | str | None:
    return next((each.limits[limit] for each in reversed(catalog.lineage(tier)) if limit in each.limits), None)


def test_five_tiers_of_which_three_are_in_the_price_table(catalog: Catalog) -> None:
    """ "Tier values: free, paid, past_due, canceled, enterprise"; "Free $0, Developer $15 / month, Enterprise"."""
    assert list(catalog.tiers) == ["free", "paid", "past_due", "canceled", "enterprise"]
    assert [name for name, tier in catalog.tiers.items() if tier.listed] == ["free", "paid", "enterprise"]
    (price,) = catalog.tiers["paid"].prices
    assert (catalog.tiers["paid"].name, price.amount, price.currency, price.interval) == (
        "Developer",
        1500,
        "usd",
        "month",
    )
    assert catalog.tiers["enterprise"].contract
    assert catalog.default_tier == "free"
    # What no test can try is at least said where plans are shown.
    said = {name: " ".join(tier.description.split()) for name, tier in catalog.tiers.items()}
    assert "first-party catalog access" in said["free"]
    for words in ("volume", "99.9% SLA", "R2 bucket", "SSO", "SAML", "OIDC", "7 years of audit log"):
        assert words.lower() in said["enterprise"].lower()


def test_all_eight_statuses_are_mapped_as_the_contract_says(catalog: Catalog) -> None:
    assert catalog.lifecycle == {
        "trialing": "paid",
        "active": "paid",
        "past_due": "past_due",
        "unpaid": "canceled",
        "paused": "canceled",
        "incomplete": "free",
        "incomplete_expired": "free",
        "canceled": "canceled",
    }


def test_ten_staging_downloads_a_month_on_free_and_canceled_and_no_limit_on_the_others(catalog: Catalog) -> None:
    limit = catalog.limits["staging_downloads_per_month"]
    assert (limit.kind, limit.meters, limit.period) == ("quota", ["staging_downloads"], "month")
    assert (limit.refusal.status, limit.refusal.reason) == (402, "staging_quota_exceeded")
    found = {tier: number(catalog, tier, "staging_downloads_per_month") for tier in catalog.tiers}
    unlimited = dict.fromkeys(("paid", "past_due", "enterprise"), "unlimited")
    assert found == {"free": 10, "canceled": 10, **unlimited}


def test_a_thousand_live_downloads_are_included_and_one_more_costs_a_tenth_of_a_cent(catalog: Catalog) -> None:
    """ "1,000 production DLs included, then $0.001 / DL"; staging is "uncapped at launch", so it has no price."""
    overage = catalog.tiers["paid"].overage
    assert list(overage) == ["live_downloads"]
    sold = overage["live_downloads"]
    assert (sold.included, sold.price, sold.currency) == (1000, Decimal("0.1"), "usd")


def test_the_live_cap_is_unlimited_by_default_per_billing_period_and_only_for_who_pays(catalog: Catalog) -> None:
    cap = catalog.limits["live_download_cap"]
    assert (cap.kind, cap.meters, cap.period) == ("cap", ["live_downloads"], "billing_period")
    assert (cap.refusal.status, cap.refusal.reason) == (402, "live_download_cap_reached")
    found = {tier: number(catalog, tier, "live_download_cap") for tier in catalog.tiers}
    assert found == dict.fromkeys(("paid", "past_due", "enterprise"), "unlimited") | {"free": None, "canceled": None}


def test_25_downloads_at_once_over_both_meters_with_a_lease_of_ten_minutes(catalog: Catalog) -> None:
    limit = catalog.limits["downloads_at_once"]
    assert (limit.kind, limit.meters, limit.window_seconds) == ("concurrency", DOWNLOADS, 600)
    assert (limit.refusal.status, limit.refusal.reason) == (429, "concurrent_download_limit_reached")
    assert {number(catalog, tier, "downloads_at_once") for tier in catalog.tiers} == {25}


def test_a_rate_per_key_answers_429(catalog: Catalog) -> None:
    limit = catalog.limits["downloads_per_key"]
    assert (limit.kind, limit.meters, limit.scope, limit.refusal.status) == ("rate", DOWNLOADS, "key", 429)


def test_the_kill_switch_answers_503_downloads_suspended_on_both_meters(catalog: Catalog) -> None:
    told = {name: meter.suspended for name, meter in catalog.meters.items()}
    assert {name: (each.status, each.reason) for name, each in told.items() if each} == dict.fromkeys(
        DOWNLOADS, (503, "downloads_suspended")
    )


def test_live_downloads_of_who_does_not_pay_get_402_subscription_inactive(catalog: Catalog) -> None:
    meter = catalog.meters["live_downloads"]
    assert meter.gate == "live_downloads"
    assert meter.gate_refusal
    assert (meter.gate_refusal.status, meter.gate_refusal.reason) == (402, "subscription_inactive")
    # "existing mk_live_* / mk_svc_* keys keep working and downloads continue uninterrupted" while past_due
    assert gates(catalog, "live_downloads") == {"paid", "past_due", "enterprise"}
    assert catalog.meters["staging_downloads"].gate is None


def test_issuing_live_and_service_keys_is_paused_while_past_due_and_canceled(catalog: Catalog) -> None:
    assert gates(catalog, "live_key_issuance") == gates(catalog, "service_key_issuance") == {"paid", "enterprise"}
    for kind in ("live", "svc"):
        refusal = catalog.key_kinds[kind].gate_refusal
        assert refusal
        assert refusal.status == 402


def test_custom_models_are_withdrawn_only_when_the_subscription_ended(catalog: Catalog) -> None:
    assert gates(catalog, "custom_models") == {"paid", "past_due", "enterprise"}


def test_what_may_be_held_is_as_in_the_price_table(catalog: Catalog) -> None:
    """ "1× mk_test_* key"; "5 custom models; 10 GB storage; 5× mk_svc_* keys"."""
    names = ("test_keys", "service_keys", "custom_models", "storage_gb")
    held = {tier: tuple(catalog.allowance(tier, name) for name in names) for tier in catalog.tiers}
    assert held["free"] == held["canceled"] == (1, 0, 0, 0)
    assert held["paid"] == held["past_due"] == (None, 5, 5, 10)


def test_key_kinds_have_their_prefixes_meters_and_may_read_status_and_download_but_not_bill(catalog: Catalog) -> None:
    kinds = {name: (kind.prefix, kind.meter, kind.gate, kind.allowance) for name, kind in catalog.key_kinds.items()}
    assert kinds == {
        "test": ("mk_test_", "staging_downloads", None, "test_keys"),
        "live": ("mk_live_", "live_downloads", "live_key_issuance", None),
        "svc": ("mk_svc_", "live_downloads", "service_key_issuance", "service_keys"),
    }
    assert all(kind.scopes == ["status", "download"] for kind in catalog.key_kinds.values())
    assert catalog.first_key_kind == "test"


def test_policies_are_those_of_the_page(catalog: Catalog) -> None:
    """ "a 7-day grace period"; "within 7 days … fewer than 100 total downloads"; "Promotion codes are accepted"."""
    policies = catalog.policies
    assert (policies.grace_days, policies.promotion_codes) == (7, True)
    assert policies.refund
    assert (policies.refund.days, policies.refund.fewer_than) == (7, 100)
    counted = catalog.limits[policies.refund.limit]
    assert (counted.meters, counted.period) == (DOWNLOADS, "lifetime")
    assert {number(catalog, tier, policies.refund.limit) for tier in catalog.tiers} == {"unlimited"}
    assert catalog.product.contact == "mailto:contact@utakata-scifi.com"


def test_the_audit_log_stays_30_days_on_free_90_on_developer_and_seven_years_on_enterprise(catalog: Catalog) -> None:
    kept = {tier: catalog.audit_retention(tier) for tier in ("free", "paid", "enterprise")}
    assert kept == {"free": timedelta(days=30), "paid": timedelta(days=90), "enterprise": timedelta(days=2557)}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "    limit: downloads_in_all",
            "    limit: downloads",
            "policies.refund.limit: no limit is named downloads",
        ),
        (
            "    limit: downloads_in_all",
            "    limit: live_download_cap",
            "policies.refund.limit: expected a quota whose period is lifetime",
        ),
        (
            "    inherits: free\n    prices",
            "    inherits: free\n    listed: false\n    prices",
            "tiers.paid.listed: a tier with prices is for sale",
        ),
    ],
)
def test_a_refund_or_a_listing_that_cannot_be_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    text = FILE.read_text()
    assert text.count(old) == 1
    path = tmp_path / "broken.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    (problem,) = caught.value.problems
    assert problem.removeprefix(f"{path}:").partition(": ")[2] == told
