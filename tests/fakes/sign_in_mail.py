"""Notify's way to people, as billing's `SignInMail` port sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from services.billing.ports import SignInLink
from services.kit.errors import Unavailable


@dataclass
class FakeSignInMail:
    """Keeps what it was given. `away`: so many of the next tries find nobody."""

    links: list[SignInLink] = field(default_factory=list)
    away: int = 0

    async def send(self, link: SignInLink) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        self.links.append(link)

    @property
    def token(self) -> str:
        """Of the latest link."""
        (token,) = parse_qs(urlsplit(self.links[-1].url).query)["token"]
        return token
