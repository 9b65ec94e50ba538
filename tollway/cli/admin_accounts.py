"""admin accounts, explain, override: with the operator's token, from TOLLWAY_OPERATOR_TOKEN."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tollway.cli import output
from tollway.cli.api import Api, resolve_url
from tollway.cli.command import current
from tollway.cli.errors import NOT_LOGGED_IN, USAGE, CliError

_Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its id (acct_…), or anything that finds only it.")]


def accounts(
    query: Annotated[str, typer.Argument(help="Part of an id, slug, name, email or customer id.")] = "",
) -> None:
    """Look for accounts.

    Example:
      tollway admin accounts ada@example.com
    """
    with operator_api() as api:
        found = api.get(f"/v1/operator/accounts?query={quote(query)}&page_size=100")
    if current.as_json:
        output.out_json(found)
        return
    rows = [
        (
            each["id"],
            each["slug"],
            each["email"],
            each["tier"],
            each["status"] or "-",
            "yes" if each["overridden"] else "",
        )
        for each in found["accounts"]
    ]
    output.table(("ID", "SLUG", "EMAIL", "TIER", "STATUS", "OVERRIDE"), rows)
    if found["next_page_token"]:
        output.note("There are more: narrow the query.")


def explain(account: _Account) -> None:
    """Say why an account is on its tier.

    It follows from a subscription, an event, an override and the catalog.

    Example:
      tollway admin explain acct_…
    """
    with operator_api() as api:
        told = api.get(f"/v1/operator/accounts/{account_id(api, account)}")
    if current.as_json:
        output.out_json(told)
        return
    output.out(f"{output.plain(told['account']['id'])} ({output.plain(told['account']['slug'])})")
    for reason in told["because"]:
        output.prose(output.plain(reason), indent="  ")
    if told["event_id"]:
        output.out(f"Last event: {output.plain(told['event_type'])}")
        output.out(f"  {output.plain(told['event_id'])} at {output.plain(told['event_at'])}")
    if told["override"]:
        output.out(f"Terms of the override: {output.plain(told['override']['terms'])}")
    output.out(f"Catalog: {output.plain(told['product'])} {output.plain(told['catalog_hash'])[:12]}")
    if told["reads_waiting"]:
        output.note(
            f"{told['reads_waiting']} reads of Stripe are due: {output.plain(told['read_error'] or 'under way')}"
        )


def override(
    account: _Account,
    tier: Annotated[str, typer.Argument(help="Any tier of the catalog.")] = "",
    terms: Annotated[str, typer.Option("--terms", help="What was agreed.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="DATE", help="2027-04-01, or a time with its zone.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the override away.")] = False,
) -> None:
    """Put an account on a tier by agreement.

    It stands whatever the subscription says, until its end or until it is removed.

    Example:
      tollway admin override acct_… enterprise --until 2027-04-01
    """
    if remove == bool(tier):
        raise CliError("a tier or --remove is expected", code=USAGE, next_step="tollway plans lists the tiers")
    if re.fullmatch(r"\d{4}-\d\d-\d\d", until):
        until += "T00:00:00Z"
    body: dict[str, Any] = {"tier": tier or None, "terms": terms, "ends_at": until or None}
    with operator_api() as api:
        answer = api.put(f"/v1/operator/accounts/{account_id(api, account)}/override", body)
    if current.as_json:
        output.out_json(answer)
    elif remove:
        output.out("The override is gone: the tier follows from the subscription.")
    else:
        made = answer["override"]
        end = f"until {made['ends_at']}" if made["ends_at"] else "until it is removed"
        output.out(f"On {output.plain(made['tier'])} by agreement, {end}.")


def operator_api() -> Api:
    token = os.environ.get("TOLLWAY_OPERATOR_TOKEN", "").strip()
    if not token.isascii() or not token.isprintable() or not token:
        step = "set TOLLWAY_OPERATOR_TOKEN to the gateway's (.tollway/env has it in local mode)"
        raise CliError("this takes the operator's token", code=NOT_LOGGED_IN, next_step=step)
    return Api(resolve_url(current.api_url), token)


def account_id(api: Api, account: str) -> str:
    """The account's id: given, or found by what else is known of it."""
    if re.fullmatch(r"acct_[A-Za-z0-9]{1,90}", account):
        return account
    found = api.get(f"/v1/operator/accounts?query={quote(account)}&page_size=2")["accounts"]
    if len(found) != 1:
        several = "several accounts fit" if found else "no account fits"
        raise CliError(several, code=USAGE, next_step=f"tollway admin accounts {output.plain(account)}")
    return str(found[0]["id"])
