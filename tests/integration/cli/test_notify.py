"""`tollway notify` as an operator calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import Cli, Gateway

TOKEN = "op_" + "a" * 40
ID = "msg_" + "0" * 31 + "1"
LIST = "/v1/operator/messages"
CATALOG = Path(__file__).parents[3] / "catalogs" / "vatly.yaml"


def message(number: int = 1, **changes: Any) -> dict[str, Any]:
    facts = {
        "id": f"msg_{number:032}",
        "account_id": "acct_1",
        "kind": "receipt",
        "about": f"in_{number}",
        "recipient": "ada@example.com",
        "state": "sent",
        "attempts": 1,
        "error": None,
        "message_id": f"<receipt.{number}@example.com>",
        "erased": False,
        "created_at": "2026-04-01T00:00:00Z",
        "sent_at": "2026-04-01T00:00:01Z",
    }
    return facts | changes


def answer(gateway: Gateway, route: str, value: dict[str, Any], status: int = 200) -> None:
    gateway.answers[route] = (status, {"Content-Type": "application/json"}, json.dumps(value).encode())


@pytest.fixture
def operator(cli: Cli, gateway: Gateway) -> Cli:
    cli.env |= {"TOLLWAY_OPERATOR_TOKEN": TOKEN, "TOLLWAY_API_URL": gateway.url}
    return cli


def page(state: str = "", size: int = 100, token: str = "") -> str:
    return f"GET {LIST}?page_size={size}&page_token={token}" + (f"&state={state}" if state else "")


def test_mails_are_listed_to_the_end_of_the_pages(operator: Cli, gateway: Gateway) -> None:
    answer(gateway, page("dead", 500), {"messages": [message(1, state="dead")], "next_page_token": "t"})
    answer(gateway, page("dead", 500, "t"), {"messages": [message(2, state="dead")], "next_page_token": None})
    told = operator("notify", "list", "--state", "dead", "--limit", "600").stdout.splitlines()
    assert told[0].split() == ["ID", "KIND", "STATE", "CREATED", "(UTC)", "TO"]
    assert [line.split()[0] for line in told[1:]] == [f"msg_{1:032}", f"msg_{2:032}"]
    listed = json.loads(operator("notify", "list", "--state", "dead", "--limit", "600", "--json").stdout)
    assert ([m["about"] for m in listed["messages"]], listed["more"]) == (["in_1", "in_2"], False)


def test_a_narrow_terminal_shows_no_broken_line(operator: Cli, gateway: Gateway) -> None:
    widest = message(1, state="unknown", kind="usage_threshold", recipient="a" * 60 + "@example.com")
    answer(gateway, page(), {"messages": [widest], "next_page_token": None})
    narrow = operator.in_terminal("notify", "list", COLUMNS="80", NO_COLOR="1").splitlines()
    assert max(map(len, narrow)) <= 80
    assert "a@example.com" in operator.in_terminal("notify", "list", COLUMNS="160", NO_COLOR="1")


def test_a_mail_is_shown_with_what_happened_to_it_and_what_to_do(operator: Cli, gateway: Gateway) -> None:
    resend = {"actor": "operator", "previous_state": "dead", "created_at": "2026-04-02T00:00:00Z"}
    dead = message(1, state="dead", sent_at=None, error="the mail server answered 550 \x1b[31m", resends=[resend])
    answer(gateway, f"GET {LIST}/{ID}", dead)
    done = operator("notify", "show", ID)
    for fact in ("dead", "receipt", "in_1", "ada@example.com", "the mail server answered 550", "by operator"):
        assert fact in done.stdout
    assert "\x1b" not in done.stdout
    assert f"tollway notify resend {ID}" in done.stderr


def test_asking_twice_for_the_same_try_is_asking_once(operator: Cli, gateway: Gateway) -> None:
    answer(gateway, f"GET {LIST}/{ID}", message(1, state="dead", resends=[]))
    answer(gateway, f"POST {LIST}/{ID}/resend", message(1, state="pending"))
    for _ in range(2):
        assert "is being sent to ada@example.com" in operator("notify", "resend", ID).stdout
    keys = [key for method, key in gateway.keys if method == "POST"]
    assert len(keys) == 2
    assert keys[0] == keys[1] != ""
    answer(gateway, f"GET {LIST}/{ID}", message(1, state="dead", attempts=2, resends=[{}]))
    operator("notify", "resend", ID, "--again")
    assert gateway.keys[-1][1] != keys[0]
    assert gateway.calls[-1][2] == {"again": True}


def test_what_was_sent_asks_for_again(operator: Cli, gateway: Gateway) -> None:
    answer(gateway, f"GET {LIST}/{ID}", message(1, resends=[]))
    gateway.refuse(f"POST {LIST}/{ID}/resend", 409, "message_already_sent", "The mail server has accepted it.")
    done = operator("notify", "resend", ID, code=4)
    assert "has accepted it" in done.stderr
    assert "--again" in done.stderr


@pytest.mark.parametrize(
    "wrong", [("list", "--state", "gone"), ("show", "in_1"), ("resend", "../x"), ("list", "--account", "a&b")]
)
def test_wrong_usage_is_told_before_anything_is_asked(operator: Cli, gateway: Gateway, wrong: tuple[str, ...]) -> None:
    operator("notify", *wrong, code=2)
    assert gateway.calls == []


def test_without_the_operators_token_nothing_is_asked(cli: Cli, gateway: Gateway) -> None:
    done = cli("notify", "list", "--api-url", gateway.url, code=3)
    assert "TOLLWAY_OPERATOR_TOKEN" in done.stderr


def test_every_mail_can_be_looked_at_before_a_customer_gets_it(cli: Cli, tmp_path: Path) -> None:
    kinds = cli("notify", "preview").stdout.split()
    assert {"receipt", "payment_failed", "usage_threshold", "cap_reached", "refund", "sign_in"} <= set(kinds)
    told = cli("notify", "preview", "receipt", "--catalog", str(CATALOG)).stdout
    assert "Subject: Your Vatly receipt: $29.00 (invoice ABCD1234-0007)" in told
    assert "support@vatly.dev" in told
    assert max(map(len, told.splitlines())) <= 78
    file = tmp_path / "mail.html"
    cli("notify", "preview", "refund", "--format", "html", "--catalog", str(CATALOG), "--out", str(file))
    assert "#1d4ed8" in file.read_text()
    shown = json.loads(cli("notify", "preview", "cap_reached", "--json").stdout)
    assert (shown["kind"], shown["format"], shown["file"]) == ("cap_reached", "text", None)


def test_a_preview_of_nothing_or_by_a_wrong_catalog_says_so(cli: Cli, tmp_path: Path) -> None:
    assert "there are receipt" in cli("notify", "preview", "nonsense", code=4).stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text(CATALOG.read_text().replace('color: "#1d4ed8"', "color: blue"))
    assert "brand.color" in cli("notify", "preview", "receipt", "--catalog", str(broken), code=4).stderr
    nowhere = str(tmp_path / "no" / "such" / "folder.html")
    assert "cannot write" in cli("notify", "preview", "receipt", "--out", nowhere, code=2).stderr
