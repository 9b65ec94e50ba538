"""Every failure is a clear line, a next step, and an exit code that says which kind it was."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.integration.cli.conftest import KEY, TOLLWAY, Cli, Gateway


def test_not_logged_in_is_3_and_says_how_to(cli: Cli, gateway: Gateway) -> None:
    done = cli("billing", "--api-url", gateway.url, code=3)
    assert done.stderr.startswith(f"error: not logged in to {gateway.url}\n")
    assert "tollway login --api-key KEY" in done.stderr


@pytest.mark.parametrize(
    ("status", "code", "detail", "step"),
    [
        (409, "already_subscribed", "The account has a live subscription.", "tollway billing portal"),
        (422, "unknown_tier", "There is no tier platinum.", "tollway plans"),
        (422, "contact_sales", "Write to sales@skytale.example.", ""),
        (402, "message_quota_exceeded", "Used up.", ""),
    ],
)
def test_a_refusal_is_4_with_the_servers_words(
    logged_in: Cli, gateway: Gateway, status: int, code: str, detail: str, step: str
) -> None:
    gateway.refuse("POST /v1/orgs/adas-relay/billing/checkout", status, code, detail)
    done = logged_in("billing", "upgrade", "platinum", code=4)
    assert detail in done.stderr
    assert step in done.stderr
    assert done.stdout == ""


def test_wrong_fields_are_named(cli: Cli, gateway: Gateway) -> None:
    errors = [{"field": "email", "detail": "is not an address"}, {"field": "name", "detail": "is too long"}]
    gateway.refuse("POST /v1/signup", 422, "validation_failed", "The request has another shape.", errors=errors)
    done = cli("signup", "ada", "--name", "x", "--api-url", gateway.url, code=4)
    assert "email: is not an address" in done.stderr
    assert "name: is too long" in done.stderr


def test_too_many_says_when_to_try_again(cli: Cli, gateway: Gateway) -> None:
    gateway.refuse("POST /v1/signup", 429, "sign_up_rate_limited", "Too many.", {"Retry-After": "42"})
    assert "try again in 42 s" in cli("signup", "a@b.c", "--name", "x", "--api-url", gateway.url, code=4).stderr


def test_a_server_that_cannot_be_reached_is_5(cli: Cli) -> None:
    done = cli("plans", "--api-url", "http://127.0.0.1:9", code=5)
    assert "cannot reach http://127.0.0.1:9" in done.stderr


def test_a_server_that_is_not_ready_is_5_and_a_broken_one_is_1(logged_in: Cli, gateway: Gateway) -> None:
    gateway.refuse("GET /v1/orgs/adas-relay/usage", 503, "unavailable", "Quota does not answer.", {"Retry-After": "1"})
    assert "try again in 1 s" in logged_in("usage", code=5).stderr
    gateway.refuse("GET /v1/orgs/adas-relay/usage", 500, "internal", "Something went wrong.")
    assert "req_1" in logged_in("usage", code=1).stderr


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"[1]", b"\xff\xfe", b""])
def test_something_that_is_no_gateway_is_said_to_be_none(cli: Cli, gateway: Gateway, content: bytes) -> None:
    gateway.answers["GET /v1/plans"] = (200, {"Content-Type": "text/html"}, content)
    assert "not a tollway gateway" in cli("plans", "--api-url", gateway.url, code=1).stderr
    gateway.answers["GET /v1/plans"] = (502, {"Content-Type": "text/html"}, content)
    assert "502" in cli("plans", "--api-url", gateway.url, code=5).stderr


def test_text_from_the_server_cannot_steer_the_terminal(logged_in: Cli, gateway: Gateway) -> None:
    gateway.refuse("GET /v1/orgs/adas-relay/usage", 409, "odd", "\x1b]0;owned\x07\x1b[2Jhello")
    done = logged_in("usage", code=4)
    assert "hello" in done.stderr
    assert "\x1b" not in done.stderr


def test_errors_are_json_too_when_asked(logged_in: Cli, gateway: Gateway) -> None:
    gateway.refuse("GET /v1/orgs/adas-relay/usage", 409, "odd", "No.")
    done = logged_in("usage", "--json", code=4)
    assert done.stdout == ""
    assert json.loads(done.stderr)["error"]["code"] == "odd"


@pytest.mark.parametrize(
    "command",
    [
        ["nonsense"],
        ["billing", "preview"],
        ["billing", "upgrade", "pro", "--timeout", "soon"],
        ["plans", "--api-url", "ftp://x"],
        ["signup"],
        ["login", "--api-key", ""],
        ["orgs"],
        ["billing", "--org", "No/Slug"],
        ["events", "tail", "--type", "Nonsense"],
        ["events", "tail", "--nats-url", "http://127.0.0.1"],
        ["events", "tail", "--account", "a.>"],
    ],
)
def test_wrong_usage_is_2(cli: Cli, command: list[str]) -> None:
    cli(*command, code=2)


@pytest.mark.parametrize("content", ["{", "[]", '{"servers": {"x": 1}}', '{"servers": {"x": {"current": "a"}}}'])
def test_a_damaged_configuration_is_named_and_left_alone(cli: Cli, content: str) -> None:
    cli.config.parent.mkdir(parents=True)
    cli.config.write_text(content)
    assert str(cli.config) in cli("whoami", code=1).stderr
    assert cli.config.read_text() == content


def test_a_key_that_cannot_be_stored_is_still_shown(cli: Cli, gateway: Gateway) -> None:
    cli.config.parent.parent.mkdir(parents=True)
    cli.config.parent.symlink_to("nowhere")  # reads as absent, and no folder can be made there
    done = cli("signup", "ada@example.com", "--name", "Ada", "--api-url", gateway.url, code=1)
    assert done.stdout == f"API key: {KEY}\n"
    assert "cannot write" in done.stderr


def test_help_imports_little_so_that_it_answers_at_once(cli: Cli) -> None:
    """Counted, not timed: some 180 modules are 0.15 s on a machine that is not busy, rich alone would double both."""
    command = [TOLLWAY[0], "-X", "importtime", *TOLLWAY[1:], "--help"]
    done = subprocess.run(command, env=cli.env, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    heavy = {"httpx", "nats", "grpc", "google.protobuf", "asyncio", "platformdirs", "services", "rich", "ssl", "socket"}
    assert not imported & heavy
    assert len(imported) < 220, len(imported)
