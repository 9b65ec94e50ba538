"""How a command fails: a line, a next step, and an exit code that scripts can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OK = 0
FAILED = 1
USAGE = 2
NOT_LOGGED_IN = 3
REFUSED = 4
UNREACHABLE = 5
INTERRUPTED = 130

EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not logged in, 4 refused by the server, "
    "5 the server cannot be reached, 130 interrupted."
)
# `code` of an error that no problem document names, with --json.
_CODES = {
    FAILED: "failed",
    USAGE: "wrong_usage",
    NOT_LOGGED_IN: "not_logged_in",
    REFUSED: "refused",
    UNREACHABLE: "unreachable",
    INTERRUPTED: "interrupted",
}


class CliError(Exception):
    """`next_step` says what to do about it; `problem` is the server's problem document, if it sent one."""

    def __init__(
        self, message: str, *, code: int = FAILED, next_step: str = "", problem: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.next_step = next_step
        self.problem = problem

    def document(self) -> dict[str, Any]:
        """The error as --json shows it: `code`, `detail`, `exit_code`, `next_step` (null: none), and what else the
        server's problem document has."""
        own = {"code": _CODES.get(self.code, "failed"), "detail": self.message}
        return own | dict(self.problem or {}) | {"exit_code": self.code, "next_step": self.next_step or None}
