"""signup, login, logout, whoami, token: who this computer is to the server."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from tollway.cli import config, output
from tollway.cli.api import Api, resolve_url
from tollway.cli.browser import NoBrowser
from tollway.cli.command import current
from tollway.cli.connection import checked, connect, credential
from tollway.cli.errors import NOT_LOGGED_IN, USAGE, CliError
from tollway.cli.questions import ask


def signup(
    email: Annotated[str | None, typer.Argument(help="Your email address.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the account is called.", show_default=False)] = None,
    email_option: Annotated[str | None, typer.Option("--email", hidden=True)] = None,
) -> None:
    """Sign up: an account on the free plan, no card needed.

    Prints the API key once, and stores it for the commands that follow.

    Example:
      tollway signup ada@example.com --name "Ada's Relay"
    """
    url = resolve_url(current.api_url)
    email = email or email_option or ask("Email", "tollway signup EMAIL --name NAME")
    name = name or ask("Name", "tollway signup EMAIL --name NAME")
    with Api(url) as api:
        answer = api.make("/v1/signup", {"email": email, "name": name})
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
    output.note(output.paint("Next: tollway plans, tollway billing upgrade", "dim", stream=sys.stderr))


def login(
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", metavar="KEY", help="Not by browser, but with this key; `-` reads it.", show_default=False
        ),
    ] = None,
    no_browser: NoBrowser = False,
) -> None:
    """Log in through the browser, or with an API key.

    Shows a code, opens the page on which you approve it, and waits. With --api-key the key is checked, then stored;
    with --api-key - it is read from standard input.

    Examples:
      tollway login
      tollway login --api-key sk_live_…
    """
    url = resolve_url(current.api_url)
    if api_key is None:
        from tollway.cli.login import by_browser

        by_browser(url, no_browser)
        return
    key = sys.stdin.readline().strip() if api_key == "-" else api_key.strip()
    if not key:
        raise CliError("no key given", code=USAGE, next_step="tollway login --api-key KEY")
    with Api(url, checked(key)) as api:
        reached = api.get("/v1/orgs")["orgs"]
    if len(reached) != 1:
        raise CliError("this is not an API key", code=USAGE, next_step="tollway login, without --api-key")
    facts = reached[0]
    known = config.load().servers.get(url, config.Server()).accounts.get(str(facts["id"]))
    account = config.Account(
        str(facts["id"]), key, str(facts["slug"]), str(facts["name"]), known.email if known else ""
    )
    _remember(url, account)
    if current.as_json:
        output.out_json({"account_id": account.id, "slug": account.slug, "email": account.email, "api_url": url})
    else:
        output.out(f"Logged in to {url} as {output.plain(account.name or account.id)} ({output.plain(account.slug)}).")


def logout() -> None:
    """Log out.

    Ends a login through the browser, or forgets the stored key, which itself stays valid.

    Example:
      tollway logout
    """
    url = resolve_url(current.api_url)
    stored = config.load()
    selected = stored.account(url)
    session = stored.sign_out(url) if selected is not None and selected.by_session else None
    gone = selected if session is not None else stored.forget(url)
    if gone is not None:
        config.save(stored)
    if session is not None:
        # Forgotten here whatever the server says: it may be gone, and an unused session ends by itself.
        _end(url, session)
    if current.as_json:
        output.out_json({"account_id": gone.id if gone else None, "api_url": url})
    elif gone is None:
        output.out(f"You were not logged in to {url}.")
    else:
        output.out(f"Logged out of {url}.")
    if session is not None and (left := stored.account(url)) is not None:
        output.note(f"The API key of {output.plain(left.slug or left.id)} is stored here, too, and used from now on.")
    if os.environ.get("TOLLWAY_API_KEY"):
        output.note("TOLLWAY_API_KEY is set in this environment and still used.")


def _end(url: str, session: config.Session) -> None:
    try:
        with Api(url, session.token) as api:
            api.delete("/v1/session")
    except CliError as error:
        if error.code != NOT_LOGGED_IN:  # it has ended before
            output.note(f"The server could not be told: {output.plain(error.message)}")


def whoami() -> None:
    """Show who you are, and for which account commands act.

    Example:
      tollway whoami
    """
    url = resolve_url(current.api_url)
    token, _ = credential(url)
    server = config.load().servers.get(url, config.Server())
    by_session = server.session is not None and token == server.session.token
    with connect() as here:
        reached: list[dict[str, Any]] = here.api.get("/v1/orgs")["orgs"]
        org = next((each for each in reached if each["slug"] == here.slug), {})
        plan = here.api.get(here.path("/billing"))["plan"]
        person = here.api.get("/v1/session") if by_session else {}
    known = server.accounts.get(str(org.get("id")))
    facts: dict[str, Any] = {
        "account_id": org.get("id"),
        "name": org.get("name"),
        "slug": here.slug,
        "role": org.get("role"),
        "email": person.get("email") or (known.email if known else "") or None,
        "plan": plan,
        "api_key": None if by_session else shortened(token),
        "session_expires_at": person.get("expires_at"),
        "api_url": url,
        "key_from": "TOLLWAY_API_KEY" if os.environ.get("TOLLWAY_API_KEY", "").strip() else str(config.path()),
    }
    if current.as_json:
        output.out_json(facts)
        return
    lines = {
        "Account": f"{output.plain(facts['name'])} ({output.plain(facts['slug'])})",
        "Id": output.plain(facts["account_id"]),
        "Email": output.plain(facts["email"] or ""),
        "Role": output.plain(facts["role"] or ""),
        "Plan": output.plain(plan),
        "API key": f"{facts['api_key']} (from {facts['key_from']})" if not by_session else "",
        "Login": f"through the browser, until {output.plain(facts['session_expires_at'])}" if by_session else "",
        "Server": url,
    }
    for label, value in lines.items():
        if value:
            output.out(f"{label}: {value}")


def token() -> None:
    """Print an access token (a JWT) in exchange for the API key.

    Example:
      curl -H "Authorization: Bearer $(tollway token)" …
    """
    url = resolve_url(current.api_url)
    key = os.environ.get("TOLLWAY_API_KEY", "").strip()
    if not key:
        account = config.load().account(url)
        if account is not None and not account.api_key:
            step = "tollway keys issue KIND, then TOLLWAY_API_KEY=KEY tollway token"
            raise CliError("this takes an API key, and none is stored here", code=NOT_LOGGED_IN, next_step=step)
        key = account.api_key if account is not None else credential(url)[0]
    with Api(url, checked(key)) as api:
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
