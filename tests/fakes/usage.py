"""Quota in memory, as billing's `Usage` port sees it."""

from __future__ import annotations

from dataclasses import dataclass

from services.billing.ports import Counted


@dataclass
class FakeUsage:
    """Knows every version at once, unless a test says which it has heard of."""

    used: int | None = 0
    version: int = 1_000_000

    async def counted(self, account_id: str, limit: str) -> Counted:
        return Counted(self.version, self.used)
