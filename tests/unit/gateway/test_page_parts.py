"""What the billing page decides without asking anybody: colours, plans, bars, words, cookies' paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pages import assets, brand, cookies, meters, plan, rendering, words
from tollway.billing.v1 import billing_pb2 as pb
from tollway.billing.v1 import entitlement_pb2 as ent
from tollway.quota.v1 import quota_pb2 as quota

COLORS = st.integers(0, 0xFFFFFF).map(lambda value: f"#{value:06x}")
PRO = pb.Price(lookup_key="pro_month", unit_amount=2900, currency="usd", interval="month")
SHOP = pb.ListPlansResponse(
    product="Skytale",
    plans=[
        pb.Plan(tier="free", display_name="Free"),
        pb.Plan(tier="pro", display_name="Pro", prices=[PRO]),
        pb.Plan(
            tier="max",
            display_name="Max",
            prices=[pb.Price(lookup_key="max_month", unit_amount=9950, currency="usd", interval="month")],
        ),
        pb.Plan(tier="enterprise", display_name="Enterprise", contact_sales=True),
    ],
)


def billing(status: str = "", *, tier: str = "free", **more: object) -> pb.Billing:
    live = status in {"trialing", "active", "past_due", "unpaid", "paused"}
    found = pb.Billing(tier=tier, tier_name=tier.capitalize(), status=status, live_subscription=live, **more)
    if live:
        found.price.CopyFrom(PRO)
        found.current_period_end.FromJsonString("2026-04-01T00:00:00Z")
    return found


@given(COLORS)
def test_whatever_the_sellers_colour_text_in_it_and_on_it_is_readable(color: str) -> None:
    sheet = brand.style_sheet(color)
    light, dark = (part.split("}")[0] for part in sheet.split("--accent:")[1:])
    assert brand.contrast(light, "#f6f7f9") >= brand.READABLE
    assert brand.contrast(light, brand.LIGHT) >= brand.READABLE
    assert brand.contrast(dark, brand.DARK) >= brand.READABLE
    assert brand.contrast(brand.readable_on(color), color) >= brand.READABLE


@given(st.text())
def test_what_is_no_colour_becomes_no_style(text: str) -> None:
    assert brand.usable(text) in {text.lower(), brand.DEFAULT}
    assert assets.brand_name(text).removeprefix("brand-").removesuffix(".css").isalnum()


@pytest.mark.parametrize(
    ("status", "upgrade", "manage", "cancel"),
    [
        ("", True, False, False),
        ("trialing", False, True, True),
        ("active", False, True, True),
        ("past_due", False, True, True),
        ("unpaid", False, True, False),
        ("paused", False, True, False),
        ("incomplete", True, False, False),
        ("incomplete_expired", True, False, False),
        ("canceled", True, False, False),
    ],
)
def test_upgrade_is_offered_without_a_live_subscription_and_manage_with_one(
    status: str, upgrade: bool, manage: bool, cancel: bool
) -> None:
    found = plan.read(billing(status), SHOP)
    assert (bool(found.upgrades), found.may_manage, found.may_cancel) == (upgrade, manage, cancel)
    assert not (found.upgrades and found.may_manage)


def test_a_change_is_offered_to_the_plans_that_are_not_bought_while_nothing_is_owed() -> None:
    def actions(of: pb.Billing) -> dict[str, str]:
        return {offer.tier: offer.action for offer in plan.read(of, SHOP).offers}

    assert actions(billing("active", tier="pro")) == {"free": "", "pro": "", "max": "change", "enterprise": "contact"}
    assert actions(billing("past_due", tier="pro"))["max"] == ""
    assert actions(billing("active", tier="pro", cancel_at_period_end=True))["max"] == ""


def test_a_plan_by_agreement_is_not_sold_anything() -> None:
    found = plan.read(billing("", tier="enterprise"), SHOP)
    assert (found.upgrades, found.may_manage, found.price) == ([], False, "By agreement")


def test_a_plan_that_ends_says_when_instead_of_renewing() -> None:
    assert plan.read(billing("active"), SHOP).date_word == "Renews"
    ending = plan.read(billing("active", cancel_at_period_end=True), SHOP)
    assert (ending.date_word, ending.may_resume, ending.may_cancel, ending.pill) == (
        "Ends",
        True,
        False,
        "Cancels soon",
    )
    assert plan.read(billing("unpaid"), SHOP).date is None
    assert plan.read(billing("canceled"), SHOP).date is None


def limit(name: str, kind: ent.LimitKind.ValueType, *of: str, **more: object) -> ent.Limit:
    return ent.Limit(name=name, kind=kind, meters=of, **more)


def entitled(*limits: ent.Limit) -> ent.Entitlements:
    return ent.Entitlements(meters=[ent.Meter(name="messages")], limits=limits)


def used(*states: quota.LimitState) -> quota.GetUsageResponse:
    return quota.GetUsageResponse(meters=[quota.MeterUsage(meter="messages", used=5, limits=states)])


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_bar_is_between_nothing_and_full_and_full_exactly_at_the_limit(count: int, most: int) -> None:
    month = limit("m", ent.LIMIT_KIND_QUOTA, "messages", period=ent.PERIOD_MONTH)
    (meter,) = meters.read(entitled(month), used(quota.LimitState(name="m", used=count, limit=most))).meters
    (bar,) = meter.bars
    assert bar.percent is not None
    assert 0 <= bar.percent <= 100
    assert (bar.level == "full") == (count >= most)
    assert (bar.level == "calm") == (count * 100 < most * 80)
    assert bar.said == f"{count:,} of {most:,}"


def test_rates_are_said_in_words_and_lifetime_counts_without_a_limit_are_not_shown() -> None:
    burst = limit("burst", ent.LIMIT_KIND_RATE, "messages", limit=60)
    burst.window.FromSeconds(60)
    in_all = limit("all", ent.LIMIT_KIND_QUOTA, "messages", period=ent.PERIOD_LIFETIME)
    states = (quota.LimitState(name="all", used=3), quota.LimitState(name="burst", used=2, limit=60))
    (meter,) = meters.read(entitled(burst, in_all), used(*states)).meters
    assert meter.notes == ["Up to 60 in any minute, 2 used right now."]
    assert meter.bars == []


def test_a_cap_is_offered_armed_until_the_account_says_otherwise() -> None:
    cap = limit("cap", ent.LIMIT_KIND_CAP, "messages", period=ent.PERIOD_BILLING)
    for state, shown in (
        (quota.LimitState(name="cap", used=1), (None, True)),
        (quota.LimitState(name="cap", used=1, limit=5, auto_stop=True), (5, True)),
        (quota.LimitState(name="cap", used=1, limit=5, auto_stop=False), (5, False)),
    ):
        (found,) = meters.read(entitled(cap), used(state)).caps
        assert (found.limit, found.auto_stop) == shown


def test_a_meter_behind_a_closed_gate_says_why_and_offers_no_cap() -> None:
    snapshot = entitled(limit("cap", ent.LIMIT_KIND_CAP, "messages", period=ent.PERIOD_BILLING))
    snapshot.meters[0].gate = "live"
    snapshot.meters[0].gate_refusal.detail = "Needs a plan."
    found = meters.read(snapshot, used())
    assert (found.meters[0].closed, found.caps) == ("Needs a plan.", [])


@pytest.mark.parametrize(
    ("amount", "currency", "tag", "full"),
    [
        (2900, "usd", "$29", "$29.00"),
        (2950, "usd", "$29.50", "$29.50"),
        (500, "jpy", "¥500", "¥500"),
        (0, "usd", "$0", "$0.00"),
    ],
)
def test_prices_leave_empty_cents_out_and_invoices_do_not(amount: int, currency: str, tag: str, full: str) -> None:
    assert (words.price(amount, currency), words.money(amount, currency)) == (tag, full)


@pytest.mark.parametrize(
    ("amount", "currency", "said"), [("0.1", "usd", "$0.001"), ("5", "jpy", "¥5"), ("2", "usd", "$0.02")]
)
def test_a_unit_price_keeps_every_digit(amount: str, currency: str, said: str) -> None:
    assert words.unit_price(amount, currency) == said


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "/dash/../v1",
        "https://evil.example",
        "/dash/a/billing?x=y",
        "/dash/a/billing\r\nX: y",
        "",
        "/",
        "/dash/A/billing",
        "/dash/device?code=<b>",
        "/dash/\\evil/billing",
        "/dash/sign-in",
    ],
)
def test_after_signing_in_nobody_is_led_anywhere_but_to_pages_of_ours(path: str) -> None:
    assert not cookies.is_page(path)


@pytest.mark.parametrize("path", ["/dash", "/dash/ada-1/billing", "/dash/device", "/dash/device?code=BCDF-GHJK"])
def test_pages_of_ours_are_gone_on_to(path: str) -> None:
    assert cookies.is_page(path)


def test_the_policy_allows_nothing_inline_and_forms_to_ourselves_and_stripe_only() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in rendering.policy("https://checkout.stripe.com").split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["form-action"] == "'self' https://checkout.stripe.com"
    assert "unsafe" not in str(rules)
    assert {rules[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert {rules[name] for name in ("base-uri", "frame-ancestors")} == {"'none'"}
