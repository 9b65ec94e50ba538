"""keys list, issue, rotate, revoke."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer

from tollway.cli import durations, output
from tollway.cli.command import current
from tollway.cli.connection import Org, connect
from tollway.cli.errors import USAGE, CliError

_Key = Annotated[str, typer.Argument(metavar="KEY_ID", help="As `tollway keys list` shows it: key_….")]


def list_keys(org: Org = "") -> None:
    """List the API keys, newest first.

    The keys themselves are not shown again.

    Example:
      tollway keys list --org adas-relay
    """
    with connect(org) as here:
        keys = here.pages("/keys", "keys")
    if current.as_json:
        output.out_json({"keys": keys})
        return
    rows = [(key["id"], key["kind"], key["name"], key["shown"], _status(key), key["created_at"]) for key in keys]
    output.table(("ID", "KIND", "NAME", "KEY", "STATUS", "CREATED"), rows)


def issue(
    kind: Annotated[str, typer.Argument(help="One of the catalog's kinds: test, live, ….")],
    name: Annotated[str, typer.Option("--name", help="What it is for.")] = "CLI",
    org: Org = "",
) -> None:
    """Issue an API key and print it, this once.

    Example:
      tollway keys issue live --name "CI"
    """
    with connect(org) as here:
        made = here.api.make(here.path("/keys"), {"kind": kind, "name": name})
    _present(made)


def rotate(
    key_id: _Key,
    overlap: Annotated[
        str, typer.Option("--overlap", help="How long the old key goes on: 0s to 7d.", metavar="TIME")
    ] = "24h",
    org: Org = "",
) -> None:
    """Replace an API key; the old one goes on for a while.

    Example:
      tollway keys rotate key_… --overlap 2h
    """
    with connect(org) as here:
        path = here.path(f"/keys/{_id(key_id)}/rotate")
        made = here.api.make(path, {"overlap_seconds": durations.seconds(overlap)})
    _present(made)
    if not current.as_json:
        output.note(f"The old key {key_id} goes on until {output.plain(made['replaced']['revoked_at'])}.")


def revoke(key_id: _Key, org: Org = "") -> None:
    """Revoke an API key: it is refused from now on, for ever.

    Example:
      tollway keys revoke key_…
    """
    with connect(org) as here:
        gone = here.api.delete(here.path(f"/keys/{_id(key_id)}"))
    if current.as_json:
        output.out_json(gone)
    else:
        output.out(f"Revoked {output.plain(gone['id'])} ({output.plain(gone['name'])}).")


def _id(key_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", key_id):
        raise CliError(f"not a key's id: {key_id}", code=USAGE, next_step="tollway keys list shows them")
    return key_id


def _status(key: dict[str, Any]) -> str:
    return f"until {key['revoked_at']}" if key["status"] == "ending" else str(key["status"])


def _present(made: dict[str, Any]) -> None:
    if current.as_json:
        output.out_json(made)
        return
    output.out(f"{output.plain(made['id'])} ({output.plain(made['kind'])}, {output.plain(made['name'])})")
    output.out(f"API key: {output.paint(str(made['api_key']), 'bold')}")
    output.note(output.paint("It is shown this once.", "dim", stream=sys.stderr))
