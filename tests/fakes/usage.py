"""Quota in memory, as billing's `Usage` port sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.billing.ports import Counted


@dataclass
class FakeUsage:
    """Knows every version at once, unless a test says which it has heard of."""

    used_in_all: int | None = 0
    by_limit: dict[str, int] = field(default_factory=dict)
    version: int = 1_000_000

    async def counted(self, account_id: str, limit: str) -> Counted:
        return Counted(self.version, self.used_in_all)

    async def used(self, account_id: str) -> dict[str, int]:
        return dict(self.by_limit)
