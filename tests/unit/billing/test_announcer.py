"""Claims about the snapshots and events that billing makes from its state."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.billing.application.names import checked_name, slug_of
from services.billing.catalog import Catalog, load_catalog
from services.billing.domain.entitlement import new_account
from services.billing.events import Announcer
from services.kit.errors import InvalidArgument
from tollway.billing.v1 import entitlement_pb2 as pb
from tollway.billing.v1 import events_pb2

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SKYTALE = load_catalog(Path("catalogs/skytale.yaml"))


def snapshot(catalog: Catalog, tier: str) -> pb.Entitlements:
    state = new_account("acct_1", catalog)
    return Announcer(catalog, "http://127.0.0.1:8080").entitlements(
        type(state)(**{**vars(state), "tier": tier, "catalog_hash": catalog.fingerprint(tier)}), NOW
    )


@pytest.mark.parametrize(("tier", "limit"), [("free", 100_000), ("pro", 1_000_000), ("enterprise", None)])
def test_a_snapshot_carries_the_tiers_number_and_the_catalogs_words(tier: str, limit: int | None) -> None:
    (quota,) = snapshot(SKYTALE, tier).limits
    assert (quota.limit if quota.HasField("limit") else None) == limit
    assert (quota.kind, quota.period) == (pb.LIMIT_KIND_QUOTA, pb.PERIOD_MONTH)
    assert (quota.refusal.reason, quota.refusal.http_status) == ("message_quota_exceeded", 402)


def test_limits_come_in_the_order_of_the_decision(tmp_path: Path) -> None:
    """DESIGN §5: rate, then quota, cap and concurrency, whatever the file's order."""
    text = Path("catalogs/skytale.yaml").read_text()
    text = text.replace(
        "\ntiers:\n",
        """
  at_once:
    kind: concurrency
    meters: [messages]
    window_seconds: 600
    refusal: { reason: too_many_at_once, status: 429, detail: Too many at once. }
  burst:
    kind: rate
    meters: [messages]
    scope: key
    refusal: { reason: too_fast, status: 429, detail: Too fast. }

tiers:
""",
    ).replace("messages_per_month: 100_000", "messages_per_month: 100_000\n      at_once: 25\n      burst: 60")
    path = tmp_path / "more.yaml"
    path.write_text(text)
    limits = snapshot(load_catalog(path), "pro").limits
    assert [limit.name for limit in limits] == ["burst", "messages_per_month", "at_once"]
    assert (limits[0].window.seconds, limits[0].scope, limits[2].window.seconds) == (60, pb.RATE_SCOPE_KEY, 600)


def test_a_snapshot_says_how_a_kill_switch_is_told_where_the_catalog_does(tmp_path: Path) -> None:
    assert not snapshot(SKYTALE, "free").meters[0].HasField("suspended_refusal")
    text = Path("catalogs/skytale.yaml").read_text()
    told = "unit: message\n    suspended: { reason: messages_suspended, status: 503, detail: Suspended for now. }"
    path = tmp_path / "suspended.yaml"
    path.write_text(text.replace("unit: message", told, 1))
    refusal = snapshot(load_catalog(path), "free").meters[0].suspended_refusal
    assert (refusal.reason, refusal.http_status, refusal.detail) == ("messages_suspended", 503, "Suspended for now.")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Ada Lovelace", "ada-lovelace"),
        ("  Ünïcode GmbH & Co. ", "unicode-gmbh-co"),
        ("日本", "account"),
        ("--", "account"),
        ("a" * 100, "a" * 40),
    ],
)
def test_a_slug_is_fit_for_an_address(name: str, slug: str) -> None:
    assert slug_of(name) == slug


@pytest.mark.parametrize("name", ["", "   ", "a" * 101, "a\nb", "a\r\nBcc: x", "a\x00b", "a\u2028b"])
def test_a_name_with_control_characters_or_of_no_length_is_refused_by_field(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_name(name)
    assert caught.value.field == "name"


def test_mails_carry_the_catalogs_brand_and_without_one_the_products_name(tmp_path: Path) -> None:
    def brand(section: str) -> events_pb2.Brand:
        path = tmp_path / "branded.yaml"
        path.write_text(Path("catalogs/skytale.yaml").read_text().replace('  color: "#0f766e"\n', section))
        return Announcer(load_catalog(path), "https://pay.example").brand()

    given = brand('  name: Skytale Relay\n  color: "#123abc"\n  sender: billing@skytale.example\n')
    assert (given.name, given.color, given.sender) == ("Skytale Relay", "#123abc", "billing@skytale.example")
    usual = brand("  {}\n")
    assert (usual.name, usual.color, usual.sender) == ("Skytale", "#4f46e5", "")
    assert (usual.support_contact, usual.billing_url) == ("mailto:contact@skytale.sh", "https://pay.example/dash")
