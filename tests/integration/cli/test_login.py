"""Logging in through the browser, and acting for one of several accounts."""

from __future__ import annotations

import json
import signal
import stat
import subprocess

import pytest

from tests.integration.cli.conftest import KEY, SESSION, Cli, Gateway


def test_a_login_through_the_browser_is_shown_waited_for_stored_and_ended(cli: Cli, gateway: Gateway) -> None:
    gateway.polls = ["authorization_pending", "authorization_pending"]
    done = cli("login", "--api-url", gateway.url)
    assert done.stdout == (
        "Your code: WDJB-MJHT\n"
        "Approve it, if the page shows the same code:\n"
        f"  {gateway.url}/dash/device?code=WDJB-MJHT\n"
        f"Logged in to {gateway.url} as ada@example.com.\n"
        "Selected Ada's Relay (adas-relay).\n"
    )
    assert gateway.calls[0][2]["client_name"].startswith("tollway on ")
    assert [call[1] for call in gateway.calls[1:]] == ["/v1/device/token"] * 3
    assert SESSION in cli.config.read_text()
    assert stat.S_IMODE(cli.config.stat().st_mode) == 0o600

    told = json.loads(cli("whoami", "--json").stdout)
    assert (told["email"], told["slug"], told["role"], told["api_key"]) == (
        "ada@example.com",
        "adas-relay",
        "owner",
        None,
    )
    assert "takes an API key" in cli("token", code=3).stderr

    assert cli("logout").stdout == f"Logged out of {gateway.url}.\n"
    assert gateway.calls[-1][:2] == ("DELETE", "/v1/session")
    assert SESSION not in cli.config.read_text()
    assert "not logged in" in cli("billing", code=3).stderr


def test_accounts_are_listed_selected_made_and_chosen_for_one_command(cli: Cli, gateway: Gateway) -> None:
    cli("login", "--api-url", gateway.url)
    assert cli("orgs", "list").stdout.splitlines() == [
        "   SLUG        NAME         ROLE   ID",
        "*  adas-relay  Ada's Relay  owner  acct_1",
        "   second      Second       admin  acct_2",
    ]
    assert cli("billing", "status", "--org", "second").stdout.startswith("Plan: second-plan\n")
    assert cli("billing", "--org", "second").stdout.startswith("Plan: second-plan\n")
    assert "tollway orgs list" in cli("orgs", "select", "nobody", code=2).stderr
    assert cli("orgs", "select", "second").stdout == "Selected Second (second).\n"
    assert cli("billing").stdout.startswith("Plan: second-plan\n")
    made = json.loads(cli("orgs", "create", "Third One", "--select", "--json").stdout)
    assert (made["slug"], made["selected"]) == ("third", True)
    assert gateway.calls[-1][:3] == ("POST", "/v1/orgs", {"name": "Third One"})
    selected = [org["slug"] for org in json.loads(cli("orgs", "list", "--json").stdout)["orgs"] if org["selected"]]
    assert selected == ["third"]


def test_a_key_that_was_stored_before_survives_a_login_and_a_logout(cli: Cli, gateway: Gateway) -> None:
    cli("login", "--api-key", KEY, "--api-url", gateway.url)
    cli("login")
    cli("billing")
    assert gateway.calls[-1][3] == f"Bearer {SESSION}"
    cli("logout")
    cli("billing")
    assert gateway.calls[-1][3] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("refused", "code", "said"),
    [("access_denied", 4, "refused in the browser"), ("expired_token", 1, "not good any more")],
)
def test_a_login_that_is_not_approved_says_so_and_stores_nothing(
    cli: Cli, gateway: Gateway, refused: str, code: int, said: str
) -> None:
    gateway.polls = ["authorization_pending", refused]
    done = cli("login", "--json", "--api-url", gateway.url, code=code)
    told = json.loads(done.stderr.splitlines()[-1])["error"]
    assert said in told["detail"]
    assert (told["exit_code"], told["next_step"]) == (code, "tollway login")
    assert done.stdout == ""
    assert not cli.config.exists()


def test_a_session_that_has_ended_says_to_log_in_again(cli: Cli, gateway: Gateway) -> None:
    cli("login", "--api-url", gateway.url)
    problem = "Your session has ended."
    gateway.refuse("GET /v1/orgs/adas-relay/billing", 401, "session_invalid", problem)
    done = cli("billing", code=3)
    assert problem in done.stderr
    assert "tollway login" in done.stderr
    gateway.refuse("DELETE /v1/session", 401, "session_invalid", problem)
    assert cli("logout").stdout == f"Logged out of {gateway.url}.\n"


def test_ctrl_c_while_waiting_for_the_approval_ends_it(cli: Cli, gateway: Gateway) -> None:
    asked: list[subprocess.Popen[str]] = []

    class Pending(list[str]):
        def __bool__(self) -> bool:
            return True

        def pop(self, _: object = 0) -> str:
            asked[0].send_signal(signal.SIGINT)
            return "authorization_pending"

    gateway.polls = Pending()
    asked.append(cli.start("login", "--api-url", gateway.url))
    _, stderr = asked[0].communicate(timeout=60)
    assert asked[0].returncode == 130
    assert "nobody is logged in" in stderr
