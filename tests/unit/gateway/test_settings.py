"""Wrong settings end the process and are named."""

from __future__ import annotations

import pytest

from gateway.settings import GatewaySettings, parse_networks
from services.kit.config import load


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOLLWAY_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("TOLLWAY_TRUSTED_PROXIES", "proxy.example.com"),
        ("TOLLWAY_PUBLIC_URL", "example.com"),
        ("TOLLWAY_PUBLIC_URL", "https://example.com/?x=1"),
        ("TOLLWAY_GATEWAY_PORT", "70000"),
        ("TOLLWAY_OPERATOR_TOKEN", "secret"),
        ("TOLLWAY_CLERK_JWKS_URL", "https://clerk.example/jwks.json"),  # of no issuer
        ("TOLLWAY_CLERK_AUTHORIZED_PARTIES", "https://app.example"),
    ],
)
def test_a_wrong_setting_is_named_at_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv("TOLLWAY_LOCAL", "1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        load(GatewaySettings)
    assert ended.value.code == 78
    assert variable in capsys.readouterr().err


@pytest.mark.parametrize("url", ["https://api.example.com/", "https://api.example.com"])
def test_a_trailing_slash_of_the_public_address_does_not_count(url: str) -> None:
    assert GatewaySettings(local=True, public_url=url).public_url == "https://api.example.com"


def test_networks_and_addresses_of_both_families_are_read() -> None:
    assert [str(network) for network in parse_networks(" 10.0.0.0/8, ::1 ,192.0.2.7,")] == [
        "10.0.0.0/8",
        "::1/128",
        "192.0.2.7/32",
    ]


@pytest.mark.parametrize(
    "jwks_url", ["http://clerk.example/jwks.json", "file:///etc/passwd", "clerk.example", "ftp://x"]
)
def test_keys_that_could_be_changed_on_their_way_are_refused(jwks_url: str) -> None:
    with pytest.raises(ValueError, match=r"TOLLWAY_CLERK_JWKS_URL: expected https"):
        GatewaySettings(local=True, clerk_issuer="https://clerk.example", clerk_jwks_url=jwks_url)


def test_without_an_address_the_keys_are_where_the_issuer_keeps_them() -> None:
    settings = GatewaySettings(local=True, clerk_issuer="https://clerk.example/")
    assert settings.jwks_url == "https://clerk.example/.well-known/jwks.json"


@pytest.mark.parametrize(
    "origins",
    [
        "checkout.stripe.com",
        "https://checkout.stripe.com/pay",
        "https://a.example; script-src *",
        "'unsafe-inline'",
        "*",
    ],
)
def test_what_is_no_origin_gets_into_no_policy(origins: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        GatewaySettings(local=True, stripe_pages=origins)


def test_forms_lead_to_the_sandbox_in_local_mode_only() -> None:
    told = {"stripe_pages": "https://pay.example, https://checkout.stripe.com", "stripe_api_base": "http://127.0.0.1:1"}
    assert GatewaySettings(local=True, **told).page_origins.split()[-1] == "http://127.0.0.1:1"
    outside = GatewaySettings(local=False, rpc_token="t" * 32, **told)
    assert outside.page_origins == "https://pay.example https://checkout.stripe.com"
