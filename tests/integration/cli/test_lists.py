"""Invoices and the audit log as a person sees them; that every command has its help, and completion works."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from typer.main import get_command

from tests.integration.cli.conftest import TOLLWAY, Cli, Gateway
from tollway.cli.main import app

JSON = {"Content-Type": "application/json"}
ORG = "/v1/orgs/adas-relay"


def answer(gateway: Gateway, route: str, value: Any) -> None:
    gateway.answers[route] = (200, JSON, json.dumps(value).encode())


def invoice(number: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"in_{number}",
        "number": number,
        "status": status,
        "amount_due": 2900,
        "amount_paid": 2900 if status == "paid" else 0,
        "currency": "usd",
        "hosted_invoice_url": f"https://invoice.example/{number}",
        "invoice_pdf": f"https://invoice.example/{number}.pdf",
        "created_at": "2026-04-01T00:00:00Z",
        "paid_at": "2026-04-01T01:00:00Z" if status == "paid" else None,
        "next_payment_attempt": None,
        **more,
    }


def test_invoices_are_a_table_and_one_of_them_has_its_pages(logged_in: Cli, gateway: Gateway) -> None:
    first = {"invoices": [invoice("A-2", "open")], "next_page_token": "in_A-2"}
    answer(gateway, f"GET {ORG}/invoices?page_size=100&page_token=", first)
    rest = {"invoices": [invoice("A-1", "paid")], "next_page_token": None}
    answer(gateway, f"GET {ORG}/invoices?page_size=99&page_token=in_A-2", rest)
    assert logged_in("billing", "invoices").stdout.splitlines() == [
        "NUMBER  STATUS     AMOUNT  DATE        PAID",
        "A-2     open    29.00 USD  2026-04-01  -",
        "A-1     paid    29.00 USD  2026-04-01  2026-04-01",
    ]
    answer(gateway, f"GET {ORG}/invoices?page_size=1000&page_token=", first | {"next_page_token": None})
    shown = logged_in("billing", "invoices", "A-2").stdout
    assert "Page: https://invoice.example/A-2\n" in shown
    assert "PDF: https://invoice.example/A-2.pdf\n" in shown
    assert "no invoice has the number X" in logged_in("billing", "invoices", "X", code=2).stderr


def test_the_audit_log_says_who_did_what(logged_in: Cli, gateway: Gateway) -> None:
    entry = {
        "id": "aud_1",
        "actor": {"kind": "session", "id": "usr_1"},
        "action": "key.issued",
        "subject": "key_1",
        "details": {"kind": "live", "name": "\x1b[2JCI"},
        "created_at": "2026-04-01T00:00:00Z",
        "deleted_at": "2026-05-01T00:00:00Z",
    }
    answer(gateway, f"GET {ORG}/audit-log?page_size=50&page_token=", {"entries": [entry], "next_page_token": None})
    assert logged_in("audit").stdout.splitlines() == [
        "2026-04-01T00:00:00Z  key.issued",
        "  key_1  kind=live  name= [2JCI  by session usr_1",
    ]


def _all(command: Any, *words: str) -> list[tuple[list[str], Any]]:
    """The command and those below it, with the words that call them."""
    subcommands = getattr(command, "commands", {})
    return [
        (list(words), command),
        *(found for name, each in subcommands.items() for found in _all(each, *words, name)),
    ]


def test_every_command_says_what_it_does_shows_an_example_and_fits_80_columns() -> None:
    command = get_command(app)
    found = _all(command)
    assert len(found) > 30
    for words, each in found:
        with each.make_context("it", [], resilient_parsing=True) as context:
            told = each.get_help(context)
        name = " ".join(words)
        if not each.no_args_is_help:
            assert "Example" in told, name
            assert f"tollway {name}" in told, name
        assert "Exit codes: 0 done" in " ".join(told.split()), name
        assert max(map(len, told.splitlines())) <= 80, f"{name}: {max(told.splitlines(), key=len)}"
        assert "--json" in told, name
        cut_off = [line for line in told.splitlines() if line.endswith("...") and "Usage:" not in line]
        assert not cut_off, f"{name} lists commands whose first sentence is too long"


@pytest.mark.parametrize(
    ("words", "cword", "offered"), [("tollway b", "1", "billing"), ("tollway orgs s", "2", "select")]
)
def test_bash_completes_commands(cli: Cli, words: str, cword: str, offered: str) -> None:
    env = cli.env | {"_TOLLWAY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": cword}
    # The name that the console script has.
    program = "import sys; sys.argv[0] = 'tollway'; from tollway.cli.main import main; main()"
    done = subprocess.run([TOLLWAY[0], "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [offered], done.stderr


def test_wrong_usage_is_json_too_when_asked(cli: Cli) -> None:
    told = json.loads(cli("billing", "upgrade", "--timeout", "soon", "--json", code=2).stderr)["error"]
    assert (told["code"], told["exit_code"]) == ("wrong_usage", 2)
    assert "--timeout" in told["detail"]
    assert told["next_step"] == "tollway billing upgrade --help"
