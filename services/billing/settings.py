"""Billing's settings, from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from services.kit.config import Settings


class BillingSettings(Settings):
    billing_port: int = Field(7101, ge=0, le=65535, description="gRPC.")
    billing_metrics_port: int = Field(7201, ge=0, le=65535, description="Prometheus; 0 turns it off.")
    billing_dsn: str = Field(description="postgresql+asyncpg://user:password@host:port/database")
    nats_url: str = Field("nats://127.0.0.1:14222", description="JetStream.")
    quota_addr: str = Field("127.0.0.1:7102", description="host:port of quota's gRPC, asked before a refund.")
    notify_addr: str = Field("127.0.0.1:7103", description="host:port of notify's gRPC, for sign-in mails.")
    secret_key: str = Field(description="At least 32 characters; encrypts signing keys. Losing it ends all JWTs.")
    public_url: str = Field("http://127.0.0.1:8080", description="Where people and programs reach the gateway.")
    catalog: Path = Field(Path("catalogs/skytale.yaml"), validation_alias="CATALOG", description="The catalog file.")
    stripe_api_key: str = Field(validation_alias="STRIPE_API_KEY", description="sk_… or rk_…")
    stripe_webhook_secret: str = Field(validation_alias="STRIPE_WEBHOOK_SECRET", description="whsec_…")
    stripe_api_base: str = Field("", validation_alias="STRIPE_API_BASE", description="Local mode: the sandbox.")
    stripe_rate: float = Field(20.0, gt=0, le=1000, description="Calls to Stripe a second, on average.")
    sweep_hours: float = Field(
        6.0, gt=0, le=168, description="Between two comparisons of every subscription at Stripe with ours."
    )
    signup_per_email: int = Field(10, ge=1, description="Sign-ups an hour for one email.")
    sign_in_per_email: int = Field(10, ge=1, description="Sign-in links an hour for one email.")
    sign_in_per_address: int = Field(60, ge=1, description="Tries to sign in an hour from one network address.")
    signup_per_address: int = Field(30, ge=1, description="Sign-ups an hour from one network address.")

    logins_per_address: int = Field(30, ge=1, description="Logins of programs an hour from one network address.")

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if len(value) < 32:
            raise ValueError("expected at least 32 characters; make one with: openssl rand -hex 32")
        return value

    @field_validator("stripe_api_key")
    @classmethod
    def _secret_key_of_stripe(cls, value: str) -> str:
        if not value.startswith(("sk_", "rk_")):
            raise ValueError("expected a secret or restricted key (sk_… or rk_…)")
        return value

    @field_validator("billing_dsn")
    @classmethod
    def _asyncpg(cls, value: str) -> str:
        if not value.startswith("postgresql+asyncpg://"):
            raise ValueError("expected postgresql+asyncpg://…")
        return value

    @field_validator("public_url")
    @classmethod
    def _no_slash_at_the_end(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("expected http://… or https://…")
        return value.rstrip("/")

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        if self.stripe_api_base and not self.local:
            raise ValueError("STRIPE_API_BASE is for the sandbox and refused outside local mode")
        if self.clock_file is not None and not self.stripe_api_base:
            raise ValueError("TOLLWAY_CLOCK_FILE moves time and is refused with the real Stripe")

    @property
    def livemode(self) -> bool:
        return self.stripe_api_key.startswith(("sk_live_", "rk_live_"))
