"""Settings of local mode, and the addresses made from them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from local import postgres
from local.settings import LocalSettings, SettingsError, load, process_environment
from local.state import State

CATALOG = Path(__file__).parents[3] / "catalogs" / "skytale.yaml"


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "state")
    state.hold()
    return state


def _load(state: State, **environment: str) -> LocalSettings:
    return load(state, {"CATALOG": str(CATALOG), **environment})


@given(st.text(min_size=1, max_size=30), st.integers(1, 65535))
def test_any_password_survives_the_way_into_a_dsn(password: str, port: int) -> None:
    url = make_url(postgres.service_dsn(postgres.admin_dsn(port, password), "tollway_quota"))
    assert (url.drivername, url.username, url.password) == ("postgresql+asyncpg", "tollway", password)
    assert (url.host, url.port, url.database) == ("127.0.0.1", port, "tollway_quota")


def test_a_given_servers_query_is_kept_in_every_dsn() -> None:
    dsn = postgres.service_dsn("postgresql://u:p@db:5432/postgres?ssl=require", "tollway_billing")
    assert dsn == "postgresql+asyncpg://u:p@db:5432/tollway_billing?ssl=require"


def test_secrets_are_made_once_and_nobody_else_may_read_them(state: State) -> None:
    first, second = _load(state).environment, _load(state).environment
    assert first == second
    assert stat.S_IMODE((state.folder / "secrets.env").stat().st_mode) == 0o600
    assert len(first["TOLLWAY_SECRET_KEY"]) >= 32
    assert first["STRIPE_WEBHOOK_SECRET"].startswith("whsec_")


def test_without_keys_everything_points_at_the_sandbox(state: State) -> None:
    settings = _load(state, TOLLWAY_SANDBOX_PORT="12222")
    assert not settings.real_stripe
    assert settings.environment["STRIPE_API_BASE"] == "http://127.0.0.1:12222"
    assert settings.environment["STRIPE_API_KEY"].startswith("sk_test_")
    assert "TOLLWAY_CLOCK_FILE" in settings.environment


def test_without_an_issuer_the_stand_in_vouches_for_this_installation(state: State) -> None:
    settings = _load(state, TOLLWAY_CLERK_PORT="12333", TOLLWAY_PUBLIC_URL="https://x.example")
    assert settings.clerk_is_ours
    told = {name: value for name, value in settings.environment.items() if name.startswith("TOLLWAY_CLERK_")}
    assert told == {
        "TOLLWAY_CLERK_PORT": "12333",
        "TOLLWAY_CLERK_ISSUER": "http://127.0.0.1:12333",
        "TOLLWAY_CLERK_JWKS_URL": "http://127.0.0.1:12333/.well-known/jwks.json",
        "TOLLWAY_CLERK_AUTHORIZED_PARTIES": "https://x.example",
    }


@pytest.mark.parametrize("name", ["TOLLWAY_CLERK_ISSUER", "TOLLWAY_CLERK_ISSUER_FILE"])
def test_an_issuer_that_is_given_is_the_only_one(state: State, name: str) -> None:
    given_ = {name: "https://clerk.example", "TOLLWAY_CLERK_AUTHORIZED_PARTIES": "https://app.example"}
    settings = _load(state, **given_)
    assert not settings.clerk_is_ours
    assert given_.items() <= process_environment(settings, given_).items()


@pytest.mark.parametrize("suffix", ["", "_FILE"])
def test_with_keys_the_real_stripe_is_used_and_time_cannot_be_moved(state: State, suffix: str) -> None:
    keys = {f"STRIPE_API_KEY{suffix}": "sk_test_x", f"STRIPE_WEBHOOK_SECRET{suffix}": "whsec_x"}
    settings = _load(state, **keys)
    assert settings.real_stripe
    child = process_environment(settings, {**keys, "STRIPE_API_BASE": "http://evil", "TOLLWAY_CLOCK_FILE": "/x"})
    assert "STRIPE_API_BASE" not in child
    assert "TOLLWAY_CLOCK_FILE" not in child
    assert keys.items() <= child.items()


def test_a_servers_address_that_is_given_is_used_and_its_databases_get_the_prefix(state: State) -> None:
    settings = _load(
        state,
        TOLLWAY_POSTGRES_URL="postgresql://u:p@db:5432/postgres",
        TOLLWAY_NATS_URL="nats://broker:4222",
        TOLLWAY_DATABASE_PREFIX="t1",
    )
    assert not settings.postgres_is_ours
    assert not settings.nats_is_ours
    assert settings.environment["TOLLWAY_QUOTA_DSN"] == "postgresql+asyncpg://u:p@db:5432/t1_quota"
    assert settings.environment["TOLLWAY_NATS_URL"] == "nats://broker:4222"


def test_two_parts_on_one_port_are_refused_with_both_names(state: State) -> None:
    with pytest.raises(SettingsError, match=r"TOLLWAY_QUOTA_PORT: 7101 is also TOLLWAY_BILLING_PORT"):
        _load(state, TOLLWAY_QUOTA_PORT="7101")


@pytest.mark.parametrize("text", ["0", "65536", "-1", "1.5", "٣٠٠٠", "80 "])
def test_what_is_no_port_is_refused(state: State, text: str) -> None:
    with pytest.raises(SettingsError, match="TOLLWAY_GATEWAY_PORT: expected a number from 1 to 65535"):
        _load(state, TOLLWAY_GATEWAY_PORT=text)


def test_a_file_is_replaced_as_a_whole_and_left_private(state: State) -> None:
    state.write("run.json", "{}")
    state.write("run.json", '{"parts": {}}')
    assert (state.folder / "run.json").read_text() == '{"parts": {}}'
    assert sorted(path.name for path in state.folder.iterdir()) == ["lock", "logs", "run.json"]
