"""The seed's commands, and everything that surrounds them."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli.conftest import KEY, Cli, Gateway

_SESSION = ("session_expires_at",)


def test_sign_up_prints_the_key_once_and_stores_it_for_its_owner_only(cli: Cli, gateway: Gateway) -> None:
    done = cli("signup", "ada@example.com", "--name", "Ada's Relay", "--api-url", gateway.url)
    assert done.stdout == f"Signed up as Ada's Relay (adas-relay).\nAPI key: {KEY}\n"
    assert stat.S_IMODE(cli.config.stat().st_mode) == 0o600
    assert stat.S_IMODE(cli.config.parent.stat().st_mode) == 0o700
    assert cli("billing").stdout == "Plan: free\nStatus: active\n"
    assert os.listdir(cli.config.parent) == ["config.json"]
    for command in (["billing"], ["whoami"], ["usage"], ["plans"]):
        done = cli(*command)
        assert KEY not in done.stdout + done.stderr


def test_billing_prints_what_the_documentation_shows(logged_in: Cli, gateway: Gateway) -> None:
    assert logged_in("billing").stdout == "Plan: free\nStatus: active\n"
    gateway.plan = "pro"
    assert logged_in("billing").stdout == "Plan: pro\nStatus: active\nRenews: 2026-04-01T00:00:00Z\n"
    gateway.canceling = True
    assert logged_in("billing").stdout == "Plan: pro\nStatus: active\nEnds: 2026-04-01T00:00:00Z\n"


def test_billing_tells_until_when_a_plan_stays_whose_payment_failed(logged_in: Cli, gateway: Gateway) -> None:
    gateway.plan, gateway.status, gateway.grace_end = "pro", "past_due", "2026-03-08T00:00:00Z"
    done = logged_in("billing")
    assert done.stdout == (
        "Plan: pro\nStatus: past_due\nRenews: 2026-04-01T00:00:00Z\nGrace until: 2026-03-08T00:00:00Z\n"
    )
    assert done.stderr == "A payment failed. Pay or change the card with: tollway billing portal\n"


def test_upgrade_prints_the_page_waits_for_the_payment_and_shows_the_plan(logged_in: Cli, gateway: Gateway) -> None:
    def pay_at_third_look(state: Gateway) -> None:
        if len([c for c in state.calls if c[:2] == ("GET", "/v1/orgs/adas-relay/billing")]) == 3:
            state.plan = "pro"

    gateway.on_status = pay_at_third_look
    done = logged_in("billing", "upgrade", "pro")
    assert done.stdout == (
        "To pay, open:\n  https://checkout.example/c/pay/cs_test_1\n"
        "Plan: pro\nStatus: active\nRenews: 2026-04-01T00:00:00Z\n"
    )
    assert gateway.calls[0] == ("POST", "/v1/orgs/adas-relay/billing/checkout", {"tier": "pro"}, f"Bearer {KEY}")
    assert len(gateway.calls) == 4


def test_upgrade_without_waiting_only_gives_the_page(logged_in: Cli, gateway: Gateway) -> None:
    done = logged_in("billing", "upgrade", "pro", "--no-wait", "--no-browser")
    assert done.stdout == "To pay, open:\n  https://checkout.example/c/pay/cs_test_1\n"
    assert [c[1] for c in gateway.calls] == ["/v1/orgs/adas-relay/billing/checkout"]


def test_a_payment_that_does_not_come_says_how_to_check_later(logged_in: Cli) -> None:
    done = logged_in("billing", "upgrade", "pro", "--timeout", "1", code=1)
    assert "tollway billing" in done.stderr
    assert "https://checkout.example/c/pay/cs_test_1" in done.stdout


def test_ctrl_c_while_waiting_says_how_to_check_later(logged_in: Cli, gateway: Gateway) -> None:
    asked: list[subprocess.Popen[str]] = []

    def interrupt(state: Gateway) -> None:
        if len(state.calls) == 3:
            asked[0].send_signal(signal.SIGINT)

    gateway.on_status = interrupt
    asked.append(logged_in.start("billing", "upgrade", "pro"))
    stdout, stderr = asked[0].communicate(timeout=60)
    assert asked[0].returncode == 130
    assert "https://checkout.example/c/pay/cs_test_1" in stdout
    assert "Check later with: tollway billing" in stderr
    assert "Traceback" not in stderr


def test_a_server_that_is_away_for_a_moment_does_not_end_the_wait(logged_in: Cli, gateway: Gateway) -> None:
    gateway.refuse("GET /v1/orgs/adas-relay/billing", 503, "unavailable", "Try again in a moment.")

    calls = gateway.calls

    class Recovering(list[object]):
        def append(self, call: object) -> None:
            super().append(call)
            if len(self) == 3:
                gateway.answers.clear()
                gateway.plan = "pro"

    gateway.calls = Recovering(calls)  # type: ignore[assignment]
    assert "Plan: pro" in logged_in("billing", "upgrade", "pro").stdout


def test_the_browser_opens_the_page_unless_told_not_to(logged_in: Cli, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s" "$1" > {opened}\n')
    browser.chmod(0o755)
    logged_in("billing", "upgrade", "pro", "--no-wait", "--no-browser", BROWSER=str(browser))
    assert not opened.exists()
    done = logged_in("billing", "portal", BROWSER=str(browser))
    assert opened.read_text() == "https://billing.example/p/session/1"
    assert done.stdout == "Your billing portal:\n  https://billing.example/p/session/1\n"


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (["billing"], {"plan", "status", "current_period_end", "cancel_at_period_end"}),
        (["billing", "portal"], {"portal_url"}),
        (["billing", "upgrade", "pro", "--no-wait"], {"checkout_url"}),
        (["usage"], {"tier", "meters"}),
        (["plans"], {"product", "plans"}),
        (["token"], {"access_token", "token_type", "expires_in"}),
        (
            ["whoami"],
            {"account_id", "name", "slug", "role", "email", "plan", "api_key", "api_url", "key_from", *_SESSION},
        ),
        (["logout"], {"account_id", "api_url"}),
    ],
)
def test_json_is_one_document_on_stdout_wherever_the_flag_stands(
    logged_in: Cli, command: list[str], keys: set[str]
) -> None:
    assert set(json.loads(logged_in(*command, "--json").stdout)) == keys
    if command != ["logout"]:
        assert set(json.loads(logged_in("--json", *command).stdout)) == keys


def test_waiting_with_json_keeps_stdout_to_the_answer_and_tells_the_page_on_stderr(
    logged_in: Cli, gateway: Gateway
) -> None:
    gateway.plan = "pro"
    done = logged_in("billing", "upgrade", "pro", "--json")
    assert json.loads(done.stdout)["plan"] == "pro"
    assert "https://checkout.example/c/pay/cs_test_1" in done.stderr


def test_usage_is_bars_and_plans_are_a_table(logged_in: Cli) -> None:
    assert logged_in("usage").stdout.splitlines() == [
        "Plan: free",
        "",
        "messages  [█░░░░░░░░░░░░░░░░░░░░░░░░░░░░░]  1,234 / 100,000  1%  resets 2026-04-01 00:00 UTC",
        "exports   unlimited                                       3",
    ]
    assert logged_in("plans").stdout.splitlines() == [
        "PLAN        NAME        PRICE            INCLUDES",
        "free        Free        free             100,000 messages per month",
        "pro         Pro         29.00 USD/month  1,000,000 messages per month",
        "enterprise  Enterprise  contact sales    unlimited messages",
    ]


def test_login_checks_the_key_and_logout_forgets_it(cli: Cli, gateway: Gateway) -> None:
    refused = cli("login", "--api-key", "sk_live_wrong", "--api-url", gateway.url, code=3)
    assert "No account has this API key." in refused.stderr
    assert not cli.config.exists()
    cli("login", "--api-key", "-", "--api-url", gateway.url, stdin=f"{KEY}\n")
    assert "Id: acct_1" in cli("whoami").stdout
    cli("logout")
    assert KEY not in cli.config.read_text()
    assert "not logged in" in cli("billing", code=3).stderr


def test_a_key_is_sent_only_to_the_server_that_issued_it(logged_in: Cli, gateway: Gateway) -> None:
    elsewhere = gateway.url.replace("127.0.0.1", "localhost")
    assert "not logged in" in logged_in("billing", "--api-url", elsewhere, code=3).stderr
    assert gateway.calls == []


def test_the_environment_goes_before_the_file(logged_in: Cli, gateway: Gateway) -> None:
    logged_in("billing", code=3, TOLLWAY_API_KEY="sk_live_other")
    assert gateway.calls[-1][3] == "Bearer sk_live_other"
    logged_in("plans", code=5, TOLLWAY_API_URL="http://127.0.0.1:9")
    assert "key_from" in logged_in("whoami", "--json", TOLLWAY_API_KEY=KEY).stdout


def test_token_prints_the_token_alone(logged_in: Cli) -> None:
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.sig\n", logged_in("token").stdout)


def test_colour_is_for_terminals_and_no_color_is_honoured(logged_in: Cli) -> None:
    def in_terminal(**env: str) -> str:
        return logged_in.in_terminal("usage", **env)

    assert "\x1b[" in in_terminal()
    assert "\x1b[" not in in_terminal(NO_COLOR="1")
    assert "\x1b[" not in logged_in("usage").stdout
