"""What quota reads from the environment."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from services.kit.config import Settings


class QuotaSettings(Settings):
    quota_port: int = Field(7102, ge=0, le=65535, description="Port of quota's gRPC.")
    quota_metrics_port: int = Field(7202, ge=0, le=65535, description="Port of quota's /metrics; 0 serves none.")
    quota_dsn: SecretStr = Field(description="quota's database: postgresql+asyncpg://user:password@host:port/name.")
    nats_url: str = Field("nats://127.0.0.1:14222", description="The NATS server with JetStream.")
    billing_addr: str = Field("127.0.0.1:7101", description="Where billing's gRPC is.")
    public_url: str = Field("http://127.0.0.1:8080", description="Where the gateway explains problems to callers.")
    quota_queue: int = Field(16_384, ge=1, description="Decisions that may wait; beyond it callers hear UNAVAILABLE.")
    quota_linger_ms: float = Field(
        5, ge=0, le=100, description="Milliseconds that a batch of decisions waits at most for more to come; 0: never."
    )

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("expected http://… or https://…")
        return value.rstrip("/")
