"""`tollway keys` and `tollway local token` as a person calls them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.cli.conftest import KEY, Cli, Gateway

JSON = {"Content-Type": "application/json"}
MADE = "sk_live_4Qm3vX8dTz2LpR7wYb5NcK4hJ6gF1sA0"


def key(key_id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": key_id,
        "kind": "live",
        "name": "CI",
        "shown": "sk_live_4Qm3…1sA0",
        "status": "active",
        "created_at": "2026-04-01T00:00:00Z",
        "revoked_at": None,
        "successor_id": None,
    } | more


@pytest.fixture
def stocked(gateway: Gateway) -> Gateway:
    def answer(route: str, value: Any, status: int = 200) -> None:
        gateway.answers[route] = (status, JSON, json.dumps(value).encode())

    answer("GET /v1/orgs", {"orgs": [{"id": "acct_1", "slug": "adas-relay", "name": "A", "role": "owner"}]})
    keys = "/v1/orgs/adas-relay/keys"
    first = {"keys": [key("key_2", status="ending", revoked_at="2026-04-02T00:00:00Z")], "next_page_token": "key_2"}
    answer(f"GET {keys}?page_size=1000&page_token=", first)
    answer(f"GET {keys}?page_size=1000&page_token=key_2", {"keys": [key("key_1")], "next_page_token": None})
    answer(f"POST {keys}", key("key_3", api_key=MADE), 201)
    ending = key("key_3", status="ending", revoked_at="2026-04-02T00:00:00Z")
    answer(f"POST {keys}/key_3/rotate", key("key_4", api_key=MADE, replaced=ending), 201)
    answer(f"DELETE {keys}/key_3", key("key_3", status="revoked"))
    return gateway


def test_keys_are_listed_from_every_page(logged_in: Cli, stocked: Gateway) -> None:
    lines = logged_in("keys", "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "KIND", "NAME", "KEY", "STATUS", "CREATED"]
    assert [line.split()[0] for line in lines[1:]] == ["key_2", "key_1"]
    assert "until 2026-04-02T00:00:00Z" in lines[1]
    listed = json.loads(logged_in("keys", "list", "--json").stdout)
    assert [each["id"] for each in listed["keys"]] == ["key_2", "key_1"]
    assert stocked.calls[-1][3] == f"Bearer {KEY}"


def test_an_issued_key_is_printed_once_on_stdout(logged_in: Cli, stocked: Gateway) -> None:
    done = logged_in("keys", "issue", "live", "--name", "CI")
    assert done.stdout == f"key_3 (live, CI)\nAPI key: {MADE}\n"
    assert stocked.calls[-1][2] == {"kind": "live", "name": "CI"}
    assert json.loads(logged_in("keys", "issue", "live", "--json").stdout)["api_key"] == MADE


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604_800)])
def test_rotating_says_how_long_the_old_key_goes_on(logged_in: Cli, stocked: Gateway, text: str, seconds: int) -> None:
    done = logged_in("keys", "rotate", "key_3", "--overlap", text)
    assert MADE in done.stdout
    assert "key_3 goes on until 2026-04-02T00:00:00Z" in done.stderr
    assert stocked.calls[-1][2] == {"overlap_seconds": seconds}


def test_revoking_names_what_was_revoked(logged_in: Cli, stocked: Gateway) -> None:
    assert logged_in("keys", "revoke", "key_3").stdout == "Revoked key_3 (CI).\n"
    assert stocked.calls[-1][:2] == ("DELETE", "/v1/orgs/adas-relay/keys/key_3")


def test_another_account_is_named_by_its_slug_and_not_looked_up(logged_in: Cli, stocked: Gateway) -> None:
    stocked.refuse("DELETE /v1/orgs/other/keys/key_3", 404, "account_not_found", "There is no such account.")
    assert "no such account" in logged_in("keys", "revoke", "key_3", "--org", "other", code=4).stderr
    assert [call[1] for call in stocked.calls] == ["/v1/orgs/other/keys/key_3"]


def test_a_refusal_by_the_plan_tells_the_next_step(logged_in: Cli, stocked: Gateway) -> None:
    stocked.refuse("POST /v1/orgs/adas-relay/keys", 402, "live_keys_suspended", "New live keys are paused.")
    told = logged_in("keys", "issue", "live", code=4).stderr
    assert "New live keys are paused." in told
    assert "tollway plans" in told


@pytest.mark.parametrize(
    "words",
    [
        ["keys", "issue"],
        ["keys", "rotate", "key_3", "--overlap", "soon"],
        ["keys", "rotate", "key_3", "--overlap", "-1h"],
        ["keys", "revoke", "../../billing"],
        ["keys", "revoke", "key_3", "--org", "../x"],
    ],
)
def test_wrong_usage_is_2_and_asks_for_nothing_but_the_account(
    logged_in: Cli, stocked: Gateway, words: list[str]
) -> None:
    logged_in(*words, code=2)
    assert {call[:2] for call in stocked.calls} <= {("GET", "/v1/orgs")}


def test_local_token_prints_what_the_issuer_made(cli: Cli, gateway: Gateway) -> None:
    gateway.answers["POST /token"] = (200, JSON, b'{"token": "a.b.c"}')
    words = ("local", "token", "--org", "acme", "--role", "member", "--user", "user_1")
    assert cli(*words, TOLLWAY_CLERK_ISSUER=gateway.url).stdout == "a.b.c\n"
    body = {"user": "user_1", "org": "acme", "role": "member", "expires_in": 3600}
    assert gateway.calls[-1][:3] == ("POST", "/token", body)


def test_local_token_says_when_there_is_no_issuer_or_it_refuses(cli: Cli, gateway: Gateway) -> None:
    gateway.answers["POST /token"] = (422, JSON, b'{"error": "role: too long"}')
    assert "role: too long" in cli("local", "token", TOLLWAY_CLERK_ISSUER=gateway.url, code=4).stderr
    gateway.answers["POST /token"] = (404, JSON, b"{}")
    assert "no identity provider" in cli("local", "token", TOLLWAY_CLERK_ISSUER=gateway.url, code=1).stderr
    assert "make run" in cli("local", "token", TOLLWAY_CLERK_ISSUER="http://127.0.0.1:1", code=5).stderr
