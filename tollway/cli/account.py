"""signup, login, logout, whoami, token: who this computer is to the server."""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Annotated, Any

import typer

from tollway.cli import config, output
from tollway.cli.api import Api, resolve_key, resolve_url
from tollway.cli.command import current
from tollway.cli.errors import USAGE, CliError


def signup(
    email: Annotated[str | None, typer.Argument(help="Your email address.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the account is called.", show_default=False)] = None,
    email_option: Annotated[str | None, typer.Option("--email", hidden=True)] = None,
) -> None:
    """Sign up: an account on the free plan, no card needed. Prints the API key once and stores it.

    Example: tollway signup ada@example.com --name "Ada's Relay"
    """
    url = resolve_url(current.api_url)
    email = email or email_option or _ask("Email", "tollway signup EMAIL --name NAME")
    name = name or _ask("Name", "tollway signup EMAIL --name NAME")
    with Api(url) as api:
        answer = api.post("/v1/signup", {"email": email, "name": name})
    facts, key = answer["account"], answer["api_key"]
    account = config.Account(
        id=str(facts["id"]), api_key=str(key), slug=facts["slug"], name=facts["name"], email=facts["email"]
    )
    try:
        stored = _remember(url, account)
    except CliError as error:
        # The key is not shown again by anybody: say it before failing.
        output.out(f"API key: {key}")
        raise error from None
    if current.as_json:
        output.out_json(answer)
        return
    output.out(f"Signed up as {output.plain(account.name)} ({output.plain(account.slug)}).")
    output.out(f"API key: {output.paint(str(key), 'bold')}")
    output.note(output.paint(f"It is shown this once, and stored in {stored}.", "dim", stream=sys.stderr))
    output.note(output.paint("Next: tollway plans, tollway billing upgrade TIER", "dim", stream=sys.stderr))


def login(
    api_key: Annotated[
        str | None, typer.Option("--api-key", help="The key; `-` reads it from standard input.", show_default=False)
    ] = None,
) -> None:
    """Log in with an API key; it is checked, then stored.

    Example: tollway login --api-key sk_live_…
    """
    url = resolve_url(current.api_url)
    if api_key == "-":
        api_key = sys.stdin.readline().strip()
    if not api_key:
        if not sys.stdin.isatty():
            raise CliError("no key given", code=USAGE, next_step="tollway login --api-key KEY")
        api_key = typer.prompt("API key", hide_input=True, err=True).strip()
    with Api(url, api_key) as api:
        claims = _claims(api.post("/v1/auth/token")["access_token"])
    account_id = str(claims.get("sub", ""))
    known = config.load().servers.get(url, config.Server()).accounts.get(account_id)
    account = config.Account(
        id=account_id,
        api_key=api_key,
        slug=known.slug if known else "",
        name=known.name if known else "",
        email=known.email if known else "",
    )
    _remember(url, account)
    if current.as_json:
        output.out_json({"account_id": account.id, "api_url": url})
    else:
        output.out(f"Logged in to {url} as {output.plain(account.name or account.id)}.")


def logout() -> None:
    """Forget the key of the current account on this server. The key itself stays valid."""
    url = resolve_url(current.api_url)
    stored = config.load()
    gone = stored.forget(url)
    if gone is not None:
        config.save(stored)
    if current.as_json:
        output.out_json({"account_id": gone.id if gone else None, "api_url": url})
    elif gone is None:
        output.out(f"You were not logged in to {url}.")
    else:
        output.out(f"Logged out of {url}.")
    if os.environ.get("TOLLWAY_API_KEY"):
        output.note("TOLLWAY_API_KEY is set in this environment and still used.")


def whoami() -> None:
    """Show the account that commands act for, as the server sees it."""
    url = resolve_url(current.api_url)
    key = resolve_key(url)
    with Api(url, key) as api:
        claims = _claims(api.post("/v1/auth/token")["access_token"])
    account_id = str(claims.get("sub", ""))
    known = config.load().servers.get(url, config.Server()).accounts.get(account_id)
    facts: dict[str, Any] = {
        "account_id": account_id,
        "name": known.name if known else "",
        "slug": known.slug if known else "",
        "email": known.email if known else "",
        "plan": claims.get("tier"),
        "api_key": shortened(key),
        "api_url": url,
        "key_from": "TOLLWAY_API_KEY" if os.environ.get("TOLLWAY_API_KEY", "").strip() else str(config.path()),
    }
    if current.as_json:
        output.out_json(facts)
        return
    if facts["name"]:
        output.out(f"Name: {output.plain(facts['name'])} ({output.plain(facts['slug'])})")
        output.out(f"Email: {output.plain(facts['email'])}")
    output.out(f"Account: {output.plain(account_id)}")
    output.out(f"Plan: {output.plain(facts['plan'])}")
    output.out(f"API key: {facts['api_key']} (from {facts['key_from']})")
    output.out(f"Server: {url}")


def token() -> None:
    """Exchange the API key for an access token (a JWT) and print it.

    Example: curl -H "Authorization: Bearer $(tollway token)" …
    """
    url = resolve_url(current.api_url)
    with Api(url, resolve_key(url)) as api:
        answer = api.post("/v1/auth/token")
    if current.as_json:
        output.out_json(answer)
    else:
        output.out(str(answer["access_token"]))


def shortened(key: str) -> str:
    """Enough of a key to tell it from others: the prefix that says its kind, and four characters."""
    kind, mark, secret = key.rpartition("_")
    return f"{kind}{mark}{secret[:4]}…" if mark and len(secret) > 12 else "…"


def _remember(url: str, account: config.Account) -> str:
    stored = config.load()
    stored.remember(url, account)
    return str(config.save(stored))


def _ask(what: str, usage: str) -> str:
    if not sys.stdin.isatty():
        raise CliError(f"{what.lower()} is missing", code=USAGE, next_step=usage)
    return str(typer.prompt(what, err=True)).strip()


def _claims(jwt: str) -> dict[str, Any]:
    """What the token says. The server issued it to us a moment ago over this connection; nothing is decided by it."""
    try:
        payload = jwt.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError) as error:
        raise CliError("the server's access token cannot be read") from error
    return claims if isinstance(claims, dict) else {}
