"""For which account a command acts, and as whom."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tollway.cli import config
from tollway.cli.api import LOGIN, Api, resolve_url
from tollway.cli.command import current
from tollway.cli.errors import NOT_LOGGED_IN, USAGE, CliError

Org = Annotated[
    str, typer.Option("--org", metavar="SLUG", help="The account; else the one that `tollway orgs select` chose.")
]
_SLUG = re.compile(r"[a-z0-9-]{1,100}")


@dataclass(frozen=True)
class Connection:
    api: Api
    slug: str

    def path(self, rest: str = "") -> str:
        """An address of the account's."""
        return f"/v1/orgs/{self.slug}{rest}"

    def pages(self, rest: str, member: str, *, limit: int | None = None) -> list[dict[str, Any]]:
        """What a list has on all its pages; `limit`: no more than so many."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            size = min(1000, limit - len(found)) if limit is not None else 1000
            page = self.api.get(f"{self.path(rest)}?page_size={size}&page_token={token}")
            found += page[member]
            token = page["next_page_token"] or ""
            if not token or (limit is not None and len(found) >= limit):
                return found


@contextlib.contextmanager
def connect(org: str = "") -> Iterator[Connection]:
    """The gateway and the account: the option's, else the selected one. Raises CliError (exit code 3) when nobody is
    logged in."""
    url = resolve_url(current.api_url)
    slug = org or current.org
    if slug and not _SLUG.fullmatch(slug):
        raise CliError(f"not an account's slug: {slug}", code=USAGE, next_step="tollway orgs list shows yours")
    token, known = credential(url, slug)
    with Api(url, token) as api:
        yield Connection(api, slug or known or _only_account(api))


def credential(url: str, slug: str = "") -> tuple[str, str]:
    """What to act with, and the slug that goes with it (empty: not known here). TOLLWAY_API_KEY goes before what is
    stored. Raises CliError (exit code 3)."""
    key = os.environ.get("TOLLWAY_API_KEY", "").strip()
    if key:
        return checked(key), slug
    server = config.load().servers.get(url, config.Server())
    selected = server.accounts.get(server.current)
    account = server.by_slug(slug) if slug else selected
    if account is not None:
        token = server.credential(account)
    else:
        # An account that is not stored here: a person's session may reach it, and a key gets the server's answer.
        token = server.session.token if server.session else server.credential(selected) if selected else ""
    if not token:
        raise CliError(f"not logged in to {url}", code=NOT_LOGGED_IN, next_step=LOGIN)
    return checked(token), account.slug if account else slug


def checked(key: str) -> str:
    """Raises CliError (exit code 3) for what cannot be sent."""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CliError("this is not an API key", code=NOT_LOGGED_IN, next_step="copy it whole, without quotes")
    return key


def _only_account(api: Api) -> str:
    """Of a key that says no more than itself. Raises CliError (exit code 2) when there are several."""
    slugs = [str(each["slug"]) for each in api.get("/v1/orgs")["orgs"]]
    if len(slugs) != 1 or not _SLUG.fullmatch(slugs[0]):
        raise CliError("which account?", code=USAGE, next_step=f"add --org, one of: {', '.join(slugs) or 'none'}")
    return slugs[0]
