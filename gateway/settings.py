"""What the gateway reads from the environment."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from services.kit.config import LOOPBACK, Settings


def parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Addresses or networks, separated by commas. Raises ValueError naming the wrong one."""
    networks = []
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        try:
            networks.append(ip_network(item, strict=False))
        except ValueError:
            raise ValueError(f"{item!r} is neither an address nor a network") from None
    return tuple(networks)


class GatewaySettings(Settings):
    gateway_port: int = Field(8080, ge=0, le=65535, description="The port of the REST surface. 0 takes a free one.")
    public_url: str = Field(
        "http://127.0.0.1:8080", description="Where people and programs reach the gateway; also the tokens' issuer."
    )
    billing_addr: str = Field("127.0.0.1:7101", description="host:port of billing's gRPC.")
    quota_addr: str = Field("127.0.0.1:7102", description="host:port of quota's gRPC.")
    notify_addr: str = Field("127.0.0.1:7103", description="host:port of notify's gRPC.")
    trusted_proxies: str = Field(
        "", description="Addresses or networks, comma-separated, whose X-Forwarded-For is believed."
    )

    operator_token: SecretStr | None = Field(
        None, description="Operators send it to /v1/operator/…; without one nobody may."
    )

    secret_key: SecretStr | None = Field(
        None, description="The installation's secret; signs download addresses. Without one they end with the process."
    )

    clerk_issuer: str = Field("", description="The outside issuer of tokens, as their `iss` spells it; empty: none.")
    clerk_jwks_url: str = Field(
        "", description="Where that issuer's keys are: https. Empty: <issuer>/.well-known/jwks.json."
    )
    clerk_authorized_parties: str = Field(
        "", description="Origins, comma-separated, one of which a token's `azp` must be. Empty: any."
    )
    clerk_audience: str = Field("", description="What a token's `aud` must hold. Empty: `aud` is not looked at.")

    stripe_api_base: str = Field("", validation_alias="STRIPE_API_BASE", description="Local mode: the sandbox.")
    stripe_pages: str = Field(
        "https://checkout.stripe.com,https://billing.stripe.com",
        description="Origins of Stripe's own pages, comma-separated; a custom domain for Checkout belongs here.",
    )

    @property
    def page_origins(self) -> str:
        """Where forms of the billing page may lead, as a Content-Security-Policy lists it."""
        named = [part.strip() for part in self.stripe_pages.split(",") if part.strip()]
        return " ".join([*named, self.stripe_api_base] if self.local and self.stripe_api_base else named)

    @property
    def jwks_url(self) -> str:
        return self.clerk_jwks_url or f"{self.clerk_issuer.rstrip('/')}/.well-known/jwks.json"

    @property
    def authorized_parties(self) -> frozenset[str]:
        return frozenset(part.strip() for part in self.clerk_authorized_parties.split(",")) - {""}

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        if self.clerk_issuer:
            parts = urlsplit(self.jwks_url)
            # Whoever can change the keys on their way can be anybody.
            if not parts.hostname or not (parts.scheme == "https" or parts.hostname in LOOPBACK):
                raise ValueError("TOLLWAY_CLERK_JWKS_URL: expected https://…")
        for name in ("clerk_jwks_url", "clerk_authorized_parties", "clerk_audience"):
            if getattr(self, name) and not self.clerk_issuer:
                raise ValueError(f"TOLLWAY_{name.upper()}: says something of TOLLWAY_CLERK_ISSUER, which is not set")

    @field_validator("operator_token")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]{32,256}", value.get_secret_value()):
            raise ValueError("expected 32 to 256 visible ASCII characters")
        return value

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("expected at least 32 characters; make one with: openssl rand -hex 32")
        return value

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("expected an address such as https://api.example.com")
        return value.rstrip("/")

    @field_validator("stripe_pages", "stripe_api_base")
    @classmethod
    def _origins(cls, value: str) -> str:
        for part in filter(None, (each.strip() for each in value.split(","))):
            if not re.fullmatch(r"https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?", part):
                raise ValueError("expected origins such as https://checkout.stripe.com, with commas between")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        parse_networks(value)
        return value
