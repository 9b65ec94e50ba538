"""Erasing asks a person for the account's slug, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from tollway.cli import admin_customers
from tollway.cli.errors import USAGE, CliError

SHOWN: dict[str, Any] = {"id": "acct_1", "name": "Ada", "email": "ada@example.com", "slug": "adas-relay"}


class Terminal:
    def __init__(self, *, is_one: bool) -> None:
        self._is_one = is_one

    def isatty(self) -> bool:
        return self._is_one


def answering(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(is_one=True))
    monkeypatch.setattr(typer, "prompt", lambda text, err: answer)


def test_the_slug_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, " adas-relay ")
    admin_customers._confirm(SHOWN)


@pytest.mark.parametrize("answer", ["y", "yes", "", "acct_1", "adas-rela"])
def test_anything_else_erases_nothing(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    answering(monkeypatch, answer)
    with pytest.raises(CliError, match="nothing was erased"):
        admin_customers._confirm(SHOWN)


def test_without_a_terminal_it_takes_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(is_one=False))
    with pytest.raises(CliError) as caught:
        admin_customers._confirm(SHOWN)
    assert caught.value.code == USAGE
    assert "--yes" in caught.value.next_step
