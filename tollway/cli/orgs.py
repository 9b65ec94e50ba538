"""orgs list, select, create, members."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

from tollway.cli import config, output
from tollway.cli.api import Api, resolve_url
from tollway.cli.command import current
from tollway.cli.connection import Org, connect, credential
from tollway.cli.errors import NOT_LOGGED_IN, USAGE, CliError


def list_orgs() -> None:
    """List your accounts; the selected one is marked.

    Example:
      tollway orgs list
    """
    url = resolve_url(current.api_url)
    found = _known(url)
    if current.as_json:
        output.out_json({"orgs": found})
        return
    if not found:
        output.out("You have no account here. Make one: tollway orgs create NAME")
        return
    rows = [("*" if o["selected"] else "", o["slug"], o["name"], o["role"] or "key", o["id"]) for o in found]
    output.table(("", "SLUG", "NAME", "ROLE", "ID"), rows)


def select(slug: Annotated[str, typer.Argument(metavar="SLUG", help="As `tollway orgs list` shows it.")]) -> None:
    """Choose the account that commands without --org act for.

    Example:
      tollway orgs select adas-relay
    """
    url = resolve_url(current.api_url)
    chosen = next((each for each in _known(url) if each["slug"] == slug), None)
    if chosen is None:
        raise CliError(f"no account of yours is called {slug}", code=USAGE, next_step="tollway orgs list shows yours")
    _choose(url, chosen)
    if current.as_json:
        output.out_json(chosen | {"selected": True})
    else:
        output.out(f"Selected {output.plain(chosen['name'] or slug)} ({slug}).")


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    and_select: Annotated[bool, typer.Option("--select", help="Select it, too.")] = False,
) -> None:
    """Make another account, on the free plan; you own it. Takes a person who logged in, not an API key.

    Example:
      tollway orgs create "Ada's Relay" --select
    """
    url = resolve_url(current.api_url)
    token, _ = credential(url)
    with Api(url, token) as api:
        made = api.make("/v1/orgs", {"name": name})
    if and_select:
        _choose(url, made | {"by_session": True})
    if current.as_json:
        output.out_json(made | {"selected": and_select})
        return
    output.out(f"Made {output.plain(made['name'])} ({output.plain(made['slug'])}).")
    if not and_select:
        output.note(output.paint(f"Next: tollway orgs select {output.plain(made['slug'])}", "dim", stream=sys.stderr))


def members(org: Org = "") -> None:
    """List the people of an account.

    Example:
      tollway orgs members --org adas-relay
    """
    with connect(org) as here:
        answer = here.api.get(here.path("/members"))
    if current.as_json:
        output.out_json(answer)
        return
    rows = [(m["email"], m["role"], "yes" if m["verified"] else "no", m["joined_at"]) for m in answer["members"]]
    output.table(("EMAIL", "ROLE", "VERIFIED", "SINCE"), rows)


def _known(url: str) -> list[dict[str, Any]]:
    """The accounts that the login reaches, and those whose keys are stored here, by slug."""
    token, _ = credential(url)
    with Api(url, token) as api:
        reached = api.get("/v1/orgs")["orgs"]
    server = config.load().servers.get(url, config.Server())
    by_session = server.session is not None and token == server.session.token
    known: dict[str, dict[str, Any]] = {
        stored.id: {"id": stored.id, "slug": stored.slug, "name": stored.name, "role": None, "by_session": False}
        for stored in server.accounts.values()
        if stored.api_key and stored.slug
    }
    known |= {str(each["id"]): each | {"by_session": by_session} for each in reached}
    for each in known.values():
        each["selected"] = each["id"] == server.current
    return sorted(known.values(), key=lambda each: str(each["slug"]))


def _choose(url: str, chosen: dict[str, Any]) -> None:
    stored = config.load()
    server = stored.servers.get(url, config.Server())
    known = server.accounts.get(str(chosen["id"]), config.Account(str(chosen["id"]), ""))
    by_session = bool(chosen.get("by_session"))
    if not by_session and not known.api_key:
        step = "unset TOLLWAY_API_KEY, or log in: tollway login"
        raise CliError("this account's key is not stored here", code=NOT_LOGGED_IN, next_step=step)
    named = replace(known, slug=str(chosen["slug"]), name=str(chosen["name"]), by_session=by_session)
    stored.remember(url, named)
    config.save(stored)
