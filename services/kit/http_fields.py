"""HTTP fields with a grammar that more than one part of the system speaks: Idempotency-Key and RateLimit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# A structured-field string (RFC 9651) or, as Stripe's clients send it, the bare text.
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x7e]+")
_MAX_KEY = 255
# Fifteen digits (RFC 9651, section 3.3.1): a reader drops the whole field for one more.
_INTEGER_MAX = 999_999_999_999_999


def idempotency_key(values: Sequence[str]) -> str | None:
    """The key of all Idempotency-Key headers, "" without one, None for what is no key. `"k"` and `k` are the same."""
    if not values:
        return ""
    text = values[0].strip()
    quoted = _QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if len(values) > 1 or not 0 < len(key) <= _MAX_KEY or not (quoted or _BARE.fullmatch(text)):
        return None
    return key


class Window(NamedTuple):
    """One limit as the RateLimit headers tell it. `resets_in_s` is None when it never resets.

    `window_s`: of a rate. `concurrent`: it counts what goes on at once.
    """

    name: str
    limit: int
    remaining: int
    resets_in_s: int | None
    window_s: int | None = None
    concurrent: bool = False

    @property
    def policy(self) -> str:
        quota = f"q={min(self.limit, _INTEGER_MAX)}"
        if self.concurrent:
            return f'{quota};qu="concurrent-requests"'
        return quota if self.window_s is None else f"{quota};w={self.window_s}"

    @property
    def state(self) -> str:
        left = f"r={min(self.remaining, _INTEGER_MAX)}"
        if self.resets_in_s is None:
            return left
        # Rounded up twice on its way here: a rate is free again within its window.
        return f"{left};t={self.resets_in_s if self.window_s is None else min(self.resets_in_s, self.window_s)}"


def rate_limit(windows: Iterable[Window]) -> dict[str, str]:
    """RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers); nothing when nothing limits.

    A number that has more digits than a field may is told as the largest that has not.
    """
    shown = [(window, window.name.replace("\\", r"\\").replace('"', r"\"")) for window in windows]
    if not shown:
        return {}
    policies = [f'"{name}";{window.policy}' for window, name in shown]
    states = [f'"{name}";{window.state}' for window, name in shown]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}
