"""Claims about catalogs: what skytale's says, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.billing.catalog import Catalog, CatalogError, load_catalog

SKYTALE = Path("catalogs/skytale.yaml")


@pytest.fixture(scope="module")
def skytale() -> Catalog:
    return load_catalog(SKYTALE)


def broken(tmp_path: Path, old: str, new: str) -> str:
    text = SKYTALE.read_text()
    assert old in text
    path = tmp_path / "broken.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_skytale_sells_what_its_seed_says(skytale: Catalog) -> None:
    """seeds/skytale.txt: Free $0 100,000; Pro $29/mo 1,000,000; Enterprise custom, unlimited."""
    limits = {name: tier.limits["messages_per_month"] for name, tier in skytale.tiers.items()}
    assert limits == {"free": 100_000, "pro": 1_000_000, "enterprise": "unlimited"}
    (price,) = skytale.tiers["pro"].prices
    assert (price.amount, price.currency, price.interval) == (2900, "usd", "month")
    assert skytale.tiers["enterprise"].contract
    assert skytale.default_tier == "free"
    assert not skytale.tiers["free"].prices


def test_vatly_sells_what_its_seed_says_and_maps_all_eight_statuses_as_the_contract_says() -> None:
    """seeds/vatly.txt: Free 500, 20 a minute, no consultation; Business 10,000 and 60; Scale 50,000 and 120."""
    vatly = load_catalog(Path("catalogs/vatly.yaml"))
    sold = {
        name: (
            tier.limits["requests_per_month"],
            tier.limits["requests_per_minute"],
            [each.gates["consultation_number"] for each in vatly.lineage(name) if each.gates][-1],
        )
        for name, tier in vatly.tiers.items()
    }
    assert sold == {"free": (500, 20, False), "business": (10_000, 60, True), "scale": (50_000, 120, True)}
    burst = vatly.limits["requests_per_minute"]
    assert (burst.kind, burst.window_seconds, burst.scope, burst.refusal.status) == ("rate", 60, "account", 429)
    free = {"paused", "incomplete", "incomplete_expired", "canceled"}
    assert {status: tier for status, tier in vatly.lifecycle.items() if tier == "free"} == dict.fromkeys(free, "free")
    assert {status for status, tier in vatly.lifecycle.items() if tier == "keep"} == {"past_due", "unpaid"}
    assert (vatly.default_tier, vatly.first_key_kind) == ("free", "live")


def test_skytale_maps_all_eight_statuses_as_the_contract_says(skytale: Catalog) -> None:
    assert skytale.lifecycle == {
        "trialing": "price",
        "active": "price",
        "past_due": "keep",
        "unpaid": "free",
        "paused": "free",
        "incomplete": "free",
        "incomplete_expired": "free",
        "canceled": "free",
    }


def test_a_wrong_value_is_told_with_file_line_and_field(tmp_path: Path) -> None:
    line = SKYTALE.read_text().splitlines().index("    kind: quota") + 1
    assert broken(tmp_path, "kind: quota", "kind: quotum").startswith(
        f"broken.yaml:{line}: limits.messages_per_month.kind: "
    )


def test_money_as_a_fraction_is_refused(tmp_path: Path) -> None:
    assert "tiers.pro.prices.0.amount: " in broken(tmp_path, "amount: 2900", "amount: 29.00")


def test_a_missing_status_is_told_by_name(tmp_path: Path) -> None:
    assert "lifecycle: unpaid is missing" in broken(tmp_path, "  unpaid: free\n", "")


def test_a_misspelt_field_is_told(tmp_path: Path) -> None:
    assert "tiers.pro.inherit: is not known here" in broken(
        tmp_path, "    inherits: free\n    prices", "    inherit: free\n    prices"
    )


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "pro is given twice" in broken(tmp_path, "  enterprise:\n", "  pro:\n")


def test_a_name_that_is_defined_nowhere_is_told_with_its_line(tmp_path: Path) -> None:
    told = broken(tmp_path, "      messages_per_month: 1_000_000", "      message_per_month: 1_000_000")
    line = SKYTALE.read_text().splitlines().index("      messages_per_month: 1_000_000")
    assert told == f"broken.yaml:{line}: tiers.pro.limits: no limit is named message_per_month"


def test_inheriting_in_a_circle_is_refused(tmp_path: Path) -> None:
    assert "goes in a circle" in broken(tmp_path, "    inherits: free\n", "    inherits: enterprise\n")


def test_a_missing_file_is_told_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(tmp_path / "none.yaml")


def test_texts_change_no_fingerprint_and_numbers_change_only_their_tiers(tmp_path: Path, skytale: Catalog) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(SKYTALE.read_text().replace("Community support.", "Forum.").replace("1_000_000", "2_000_000"))
    other = load_catalog(path)
    assert other.fingerprint("free") == skytale.fingerprint("free")
    assert other.fingerprint("pro") != skytale.fingerprint("pro")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("sk_live_", "ses_live_", "would look like a session's token"),
        (
            "    meter: messages\n\npolicies",
            "    gate_refusal: { reason: closed, status: 402, detail: No. }\n\npolicies",
            "a refusal comes with the gate or allowance that it is for",
        ),
        ("grace_days: 0", "audit_retention_days: 0", "policies.audit_retention_days"),
        (
            "    description: Encrypted",
            "    audit_retention_days: 90.5\n    description: Encrypted",
            "tiers.free.audit",
        ),
    ],
)
def test_what_a_kind_of_key_or_a_retention_cannot_be_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert told in broken(tmp_path, old, new)


def test_gates_allowances_and_retention_follow_the_line_of_ancestors() -> None:
    catalog = load_catalog(Path("tests/catalogs/downloads.yaml"))
    said = {
        tier: (
            catalog.gate_open(tier, "live_key_issuance"),
            catalog.allowance(tier, "test_keys"),
            catalog.allowance(tier, "service_keys"),
            catalog.audit_retention(tier).days,
        )
        for tier in catalog.tiers
    }
    assert said == {
        "free": (False, 2, 0, 30),
        "paid": (True, None, 5, 90),
        "past_due": (False, None, 5, 90),
        "enterprise": (True, None, 5, 2557),
    }
    assert load_catalog(SKYTALE).audit_retention("pro").days == 30


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('color: "0f766e"', "brand.color: String should match pattern"),
        ("color: teal", "brand.color: String should match pattern"),
        ("sender: billing", "brand.sender: expected one plain address, such as billing@example.com"),
        ('sender: "a@b.example\\r\\nBcc: c@d.example"', "brand.sender: expected one plain address"),
        ("sender: Skytale <a@b.example>", "brand.sender: expected one plain address"),
        ('name: "Sky<b>tale"', "brand.name: String should match pattern"),
        ("logo: sky.png", "brand.logo: is not known here; check the spelling"),
    ],
)
def test_a_wrong_brand_is_told_with_file_line_and_field(tmp_path: Path, line: str, told: str) -> None:
    assert broken(tmp_path, 'color: "#0f766e"', line).startswith(f"broken.yaml:9: {told}")
