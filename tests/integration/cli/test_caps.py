"""`tollway usage`, `tollway caps` and `tollway admin kill-switch` as a person calls them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.cli.conftest import KEY, Cli, Gateway

JSON = {"Content-Type": "application/json"}
RESETS = "2026-07-01T00:00:00Z"
TOKEN = "op_" + "a" * 40
CAP = "/v1/orgs/adas-relay/caps/live_downloads"
SWITCH = "/v1/operator/kill-switch"


def limit(name: str, kind: str, used: int, most: int | None, **more: Any) -> dict[str, Any]:
    left = None if most is None else max(0, most - used)
    own = {"window_seconds": None, "auto_stop": None, "resets_at": None}
    return {"name": name, "kind": kind, "used": used, "limit": most, "remaining": left, **own, **more}


@pytest.fixture
def guarded(gateway: Gateway) -> Gateway:
    """An account with a cap on live downloads; staging is counted by the month."""
    cap = limit("live_download_cap", "cap", 900, 1000, auto_stop=True, resets_at=RESETS)
    month = limit("staging_downloads_per_month", "quota", 4, 10, resets_at=RESETS)
    rate = limit("downloads_per_key", "rate", 3, 60, window_seconds=60, resets_at=RESETS)
    slots = limit("downloads_at_once", "concurrency", 25, 25)
    answer(
        gateway,
        "GET /v1/orgs/adas-relay/usage",
        {
            "tier": "paid",
            "meters": [
                {"meter": "staging_downloads", **month, "limits": [rate, month]},
                {
                    "meter": "live_downloads",
                    "used": 900,
                    "limit": None,
                    "remaining": None,
                    "resets_at": RESETS,
                    "limits": [limit("downloads_in_all", "quota", 904, None), cap, slots],
                },
            ],
            "allowances": [{"name": "custom_models", "held": 2, "limit": 5, "remaining": 3}],
        },
    )
    answer(gateway, "GET /v1/orgs", {"orgs": [{"id": "acct_1", "slug": "adas-relay", "name": "A", "role": "owner"}]})
    answer(gateway, f"PUT {CAP}", {"meter": "live_downloads", **cap})
    return gateway


def answer(gateway: Gateway, route: str, value: Any) -> None:
    gateway.answers[route] = (200, JSON, json.dumps(value).encode())


def test_usage_shows_caps_slots_rates_and_what_is_held_beside_the_meters(logged_in: Cli, guarded: Gateway) -> None:
    lines = logged_in("usage", COLUMNS="80").stdout.splitlines()
    bar = lines[2].partition("[")[2].partition("]")[0]
    shown = [" ".join(line.replace("█", "").replace("░", "").split()) for line in lines]
    assert len(bar) > 5
    assert shown == [
        "Plan: paid",
        "",
        "staging_downloads [] 4 / 10 40% resets 2026-07-01 00:00 UTC",
        "in 60 s [] 3 / 60 5%",
        "live_downloads unlimited 900 resets 2026-07-01 00:00 UTC",
        "your cap [] 900 / 1,000 90% resets 2026-07-01 00:00 UTC",
        "at once [] 25 / 25 100%",
        "custom_models [] 2 / 5 40% held now",
    ]
    assert max(map(len, lines)) <= 80


def test_a_meters_bar_shows_what_is_gone_of_its_quota_by_other_meters_or_reserves_too(
    logged_in: Cli, gateway: Gateway
) -> None:
    shared = limit("both", "quota", 8, 10)
    meter = {"meter": "live_downloads", "used": 3, "limit": 10, "remaining": 2, "resets_at": None, "limits": [shared]}
    over = limit("staging_downloads_per_month", "quota", 15, 10)
    meters = [meter, {"meter": "staging_downloads", **over, "limits": [over]}]
    answer(gateway, "GET /v1/orgs/adas-relay/usage", {"tier": "paid", "meters": meters, "allowances": []})
    lines = logged_in("usage", COLUMNS="80").stdout.splitlines()[2:]
    assert [line.split("]")[1].split() for line in lines] == [
        ["3", "/", "10", "80%"],
        ["8", "/", "10", "80%"],
        ["15", "/", "10", "150%"],
    ]
    bars = [line[line.index("[") : line.index("]")] for line in lines]
    assert bars[0] == bars[1]
    assert "░" not in bars[2]


def test_usage_draws_with_what_the_terminals_characters_can(logged_in: Cli, guarded: Gateway) -> None:
    assert "[####" in logged_in("usage", PYTHONIOENCODING="ascii").stdout


def test_caps_lists_the_meters_that_may_be_capped(logged_in: Cli, guarded: Gateway) -> None:
    lines = logged_in("caps").stdout.splitlines()
    assert lines[0].split() == ["METER", "CAP", "USED", "REMAINING", "THEN", "RESETS"]
    assert lines[1].split() == ["live_downloads", "1,000", "900", "100", "stops", "2026-07-01", "00:00", "UTC"]
    assert [cap["meter"] for cap in json.loads(logged_in("caps", "--json").stdout)["caps"]] == ["live_downloads"]


def test_a_plan_without_caps_says_so(logged_in: Cli) -> None:
    assert "no meter that may be capped" in logged_in("caps").stdout


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["set", "live_downloads", "1,000"], {"limit": 1000, "auto_stop": True}),
        (["set", "live_downloads", "1_000", "--warn-only"], {"limit": 1000, "auto_stop": False}),
        (["clear", "live_downloads"], {"limit": None}),
    ],
)
def test_a_cap_is_set_and_cleared_for_the_account_that_is_logged_in(
    logged_in: Cli, guarded: Gateway, words: list[str], body: dict[str, Any]
) -> None:
    done = logged_in("caps", *words)
    assert done.stdout == "live_downloads: 900 of 1,000 used, then it stops, resets 2026-07-01 00:00 UTC.\n"
    assert guarded.calls[-1] == ("PUT", CAP, body, f"Bearer {KEY}")
    assert json.loads(logged_in("caps", *words, "--json").stdout)["limit"] == 1000


def test_a_refused_cap_has_a_next_step(logged_in: Cli, guarded: Gateway) -> None:
    guarded.refuse(f"PUT {CAP}", 422, "cap_not_offered", "The account's plan has no cap on this meter.")
    said = logged_in("caps", "set", "live_downloads", "5", code=4).stderr
    assert "no cap on this meter" in said
    assert "tollway caps" in said


@pytest.mark.parametrize(
    "words", [["set", "live_downloads", "many"], ["set", "../keys", "5"], ["set", "live_downloads"], ["clear"]]
)
def test_a_cap_that_cannot_be_is_wrong_usage_and_sends_nothing(
    logged_in: Cli, guarded: Gateway, words: list[str]
) -> None:
    logged_in("caps", *words, code=2)
    assert not [call for call in guarded.calls if call[0] == "PUT"]


def test_operators_throw_see_and_release_kill_switches_with_their_own_token(cli: Cli, gateway: Gateway) -> None:
    def served(route: str, value: dict[str, Any]) -> None:
        answer(gateway, route, value)

    thrown = {"meter": None, "enabled": True, "reason": "incident 4711", "changed_at": RESETS}
    served(f"PUT {SWITCH}", thrown)
    served(f"GET {SWITCH}", {"enabled": True, "reason": "incident 4711", "switches": [thrown]})
    env = {"TOLLWAY_OPERATOR_TOKEN": TOKEN, "TOLLWAY_API_URL": gateway.url}
    done = cli("admin", "kill-switch", "on", "incident 4711", **env)
    assert done.stdout == "Kill switch ON for every meter: incident 4711\n"
    assert gateway.calls[-1] == (
        "PUT",
        SWITCH,
        {"enabled": True, "reason": "incident 4711", "meter": None},
        f"Bearer {TOKEN}",
    )
    lines = cli("admin", "kill-switch", **env).stdout.splitlines()
    assert lines[1].split() == ["every", "meter", "ON", "2026-07-01", "00:00", "UTC", "incident", "4711"]
    served(f"PUT {SWITCH}", {"meter": "live_downloads", "enabled": False, "reason": "", "changed_at": RESETS})
    done = cli("admin", "kill-switch", "off", "--meter", "live_downloads", **env)
    assert done.stdout == "Kill switch off for live_downloads.\n"
    assert gateway.calls[-1][2] == {"enabled": False, "meter": "live_downloads"}
    assert json.loads(cli("admin", "kill-switch", "--json", **env).stdout)["switches"] == [thrown]


def test_without_the_operators_token_or_with_a_wrong_one_it_says_what_to_set(cli: Cli, gateway: Gateway) -> None:
    said = cli("admin", "kill-switch", code=3, TOLLWAY_API_URL=gateway.url).stderr
    assert "TOLLWAY_OPERATOR_TOKEN" in said
    assert gateway.calls == []
    gateway.refuse(f"GET {SWITCH}", 401, "operator_token_invalid", "This is not the operator's token.")
    env = {"TOLLWAY_OPERATOR_TOKEN": "wrong", "TOLLWAY_API_URL": gateway.url}
    assert "check TOLLWAY_OPERATOR_TOKEN" in cli("admin", "kill-switch", code=3, **env).stderr
