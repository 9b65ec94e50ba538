"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works, and may not do so for long
    FAIL = "fail"
    SKIP = "skip"  # it could not be looked at, or there is nothing to look at


@dataclass(frozen=True)
class Finding:
    check: str
    state: State
    detail: str
    fix: str = ""  # what to do about it

    @classmethod
    def ok(cls, check: str, detail: str) -> Finding:
        return cls(check, State.OK, detail)

    @classmethod
    def warn(cls, check: str, detail: str, fix: str) -> Finding:
        return cls(check, State.WARN, detail, fix)

    @classmethod
    def fail(cls, check: str, detail: str, fix: str) -> Finding:
        return cls(check, State.FAIL, detail, fix)

    @classmethod
    def skip(cls, check: str, detail: str) -> Finding:
        return cls(check, State.SKIP, detail)
