"""For which account a command acts."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from tollway.cli import config
from tollway.cli.api import Api, resolve_key, resolve_url
from tollway.cli.command import current
from tollway.cli.errors import USAGE, CliError

Org = Annotated[str, typer.Option("--org", metavar="SLUG", help="The account; else the one you are logged in to.")]


def connect() -> Api:
    """The gateway, with the key of who is logged in. Raises CliError (exit code 3) when nobody is."""
    url = resolve_url(current.api_url)
    return Api(url, resolve_key(url))


def slug_of(api: Api, org: str) -> str:
    """The account's name in addresses: the option, else what login noted, else what the server says it is."""
    if org:
        if not re.fullmatch(r"[a-z0-9-]{1,100}", org):
            raise CliError(f"not an account's slug: {org}", code=USAGE, next_step="try without --org")
        return org
    account = config.load().account(resolve_url(current.api_url))
    orgs = api.get("/v1/orgs")["orgs"]
    slugs = [str(each["slug"]) for each in orgs]
    if account is not None and account.slug in slugs:
        return account.slug
    if len(slugs) != 1:
        raise CliError("which account?", code=USAGE, next_step=f"add --org, one of: {', '.join(slugs) or 'none'}")
    return slugs[0]
