"""What notify reads from the environment."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from services.kit.config import Settings
from services.notify.domain import usable_address


class NotifySettings(Settings):
    notify_port: int = Field(7103, ge=0, le=65535, description="Port of notify's gRPC.")
    notify_metrics_port: int = Field(7203, ge=0, le=65535, description="Port of notify's /metrics; 0 serves none.")
    notify_dsn: SecretStr = Field(description="notify's database: postgresql+asyncpg://user:password@host:port/name.")
    nats_url: str = Field("nats://127.0.0.1:14222", description="The NATS server with JetStream.")
    billing_addr: str = Field("127.0.0.1:7101", description="host:port of billing's gRPC, asked for addresses.")
    smtp_url: SecretStr = Field(
        SecretStr("smtp://127.0.0.1:1025"),
        description="The mail server: smtp://user:password@host:port, upgraded by STARTTLS where offered and always"
        " when there is a password, or smtps:// for TLS from the first byte.",
    )
    mail_from: str = Field(
        "",
        description="The address mails come from, unless the catalog's brand has a sender; the brand's name is added.",
    )
    mail_locale: str = Field("en_US", description="How amounts and dates are written (CLDR: en_US, de_DE, ja_JP).")

    @field_validator("smtp_url")
    @classmethod
    def _smtp(cls, value: SecretStr) -> SecretStr:
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
            raise ValueError("expected smtp://user:password@host:port or smtps://…")
        _ = parts.port  # raises ValueError when it is no number
        return value

    @field_validator("mail_from")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not usable_address(value):
            raise ValueError("expected one plain address, such as billing@example.com")
        return value

    @field_validator("mail_locale")
    @classmethod
    def _locale(cls, value: str) -> str:
        from babel import Locale, UnknownLocaleError

        try:
            return str(Locale.parse(value))
        except (UnknownLocaleError, ValueError) as error:
            raise ValueError("expected a locale such as en_US or de_DE") from error

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        if not self.mail_from and not self.local:
            raise ValueError("TOLLWAY_MAIL_FROM is required outside local mode")

    @property
    def sender(self) -> str:
        return self.mail_from or "billing@localhost"
