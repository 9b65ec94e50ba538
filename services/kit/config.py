"""Settings come from the environment, or for secrets from a file: `NAME` or `NAME_FILE`.

A service that lacks one, or has a wrong one, refuses to start and names the variable.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


EX_CONFIG = 78  # sysexits.h


class _FromFiles(PydanticBaseSettingsSource):
    """Reads `NAME_FILE` for every setting `NAME`: the convention of container images."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = variable(self.settings_cls, field_name)
        path = os.environ.get(f"{name}_FILE")
        if not path:
            return None, field_name, False
        if os.environ.get(name):
            raise ConfigurationError(f"{name} and {name}_FILE are both set: keep one")
        try:
            return Path(path).read_text().strip(), str(field.alias or field_name), False
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigurationError(f"{name}_FILE: cannot read the file it names: {reason}") from error

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field_name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, field_name)
            if value:  # an empty file is like an empty variable: not set
                found[key] = value
        return found


class ConfigurationError(ValueError):
    """The environment cannot be used; the message names the variable and never a value."""


class Settings(BaseSettings):
    """What every process reads. A service's own settings inherit from it."""

    model_config = SettingsConfigDict(
        env_prefix="TOLLWAY_", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    local: bool = Field(False, description="Local mode: plaintext and no token on loopback, a clock that can be moved.")
    clock_file: Path | None = Field(None, description="Local mode only: the file with the business clock's offset.")
    host: str = Field("127.0.0.1", description="The address to bind.")
    log_level: str = Field("info", description="debug, info, warning or error.")
    rpc_token: str = Field("", description="The secret that callers of internal gRPC present. Required off loopback.")
    tls_cert: Path | None = Field(None, description="PEM certificate of this service; with it gRPC speaks TLS.")
    tls_key: Path | None = Field(None, description="PEM key of that certificate.")
    tls_ca: Path | None = Field(None, description="PEM authorities; callers must show a certificate of theirs (mTLS).")

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.lower() not in {"debug", "info", "warning", "error"}:
            raise ValueError("expected debug, info, warning or error")
        return value.lower()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _FromFiles(settings_cls)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return []  # settings hold secrets, and reprs end up in logs

    def model_post_init(self, _: Any) -> None:
        if self.clock_file is not None and not self.local:
            raise ConfigurationError(
                "TOLLWAY_CLOCK_FILE moves time and is refused outside local mode (TOLLWAY_LOCAL=1)"
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigurationError("TOLLWAY_TLS_CERT and TOLLWAY_TLS_KEY belong together: one is missing")
        # Authorities check callers only where we speak TLS ourselves.
        if not self.rpc_token and not (self.tls_ca and self.tls_cert):
            wanted = "TOLLWAY_RPC_TOKEN (or TOLLWAY_TLS_CA with TOLLWAY_TLS_CERT and TOLLWAY_TLS_KEY) is required"
            if self.host not in LOOPBACK:
                raise ConfigurationError(f"{wanted} to serve beyond loopback")
            if not self.local:
                raise ConfigurationError(f"{wanted} outside local mode")


S = TypeVar("S", bound=Settings)


def variable(settings: type[BaseSettings], field_name: str) -> str:
    """The environment variable of a field: its alias, else the prefix and the name in capitals."""
    field = settings.model_fields[field_name]
    alias = field.validation_alias or field.alias
    return str(alias) if alias else f"{settings.model_config.get('env_prefix', '')}{field_name}".upper()


class Wrong(Exception):
    """The settings cannot be used; `problems` has one line for each wrong variable, and no value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read(settings: type[S]) -> S:
    """Raises Wrong."""
    try:
        return settings()
    except ValidationError as error:
        problems = [_describe(settings, problem) for problem in error.errors(include_input=False, include_url=False)]
    except ValueError as error:  # ours, or raised by a service's model_post_init
        problems = [str(error)]
    raise Wrong(problems)


def load(settings: type[S]) -> S:
    """Reads the settings or ends the process with one line per wrong variable on stderr (exit 78, EX_CONFIG)."""
    try:
        return read(settings)
    except Wrong as wrong:
        for problem in wrong.problems:
            print(f"configuration: {problem}", file=sys.stderr)
    raise SystemExit(EX_CONFIG)


def _describe(settings: type[Settings], problem: ErrorDetails) -> str:
    text = "is required" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return text
    place = str(problem["loc"][0])
    name = variable(settings, place) if place in settings.model_fields else place
    return f"{name}: {text}"
