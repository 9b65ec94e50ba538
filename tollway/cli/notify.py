"""notify list, show, resend, preview: what became of mails, and how they look.

The first three ask the gateway with the operator's token. A preview runs the services' own program, and works where
they are installed: in a checkout or the container image.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tollway.cli import installation, output
from tollway.cli.admin_accounts import operator_api
from tollway.cli.command import current
from tollway.cli.errors import FAILED, REFUSED, USAGE, CliError

STATES = ("pending", "sent", "dead", "unknown", "skipped")
_Message = Annotated[str, typer.Argument(metavar="MESSAGE_ID", help="msg_…, as `tollway notify list` shows it.")]
_ROOMY = 110  # columns of a terminal
_COLOURS = {"sent": "green", "pending": "cyan", "dead": "red", "unknown": "yellow", "skipped": "dim"}


def list_messages(
    state: Annotated[str, typer.Option("--state", help=f"Only these: {', '.join(STATES)}.")] = "",
    account: Annotated[str, typer.Option("--account", metavar="ID", help="Only this one's.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 100,
) -> None:
    """List mails, newest first.

    Dead ones were refused for good; unknown ones may or may not have arrived, and are sent again only by
    `tollway notify resend`.

    Example:
      tollway notify list --state dead
    """
    if state not in {"", *STATES} or not re.fullmatch(r"[A-Za-z0-9_]*", account):
        raise CliError("not a state, or not an account's id", code=USAGE, next_step=f"states: {', '.join(STATES)}")
    found: list[dict[str, Any]] = []
    token: str | None = ""
    only = (f"&state={state}" if state else "") + (f"&account_id={account}" if account else "")
    with operator_api() as api:
        while token is not None and len(found) < limit:
            size = min(500, limit - len(found))
            path = f"/v1/operator/messages?page_size={size}&page_token={token}{only}"
            page = api.get(path)
            found += page["messages"]
            token = page["next_page_token"]
    if current.as_json:
        output.out_json({"messages": found, "more": token is not None})
        return
    if not found:
        output.note("There are none.")
        return
    import shutil

    # On a narrow terminal without the address, which `show` has: lines that break read badly.
    roomy = not sys.stdout.isatty() or shutil.get_terminal_size().columns >= _ROOMY
    rows = [
        (m["id"], m["kind"], m["state"], m["created_at"][:16].replace("T", " "), m["recipient"] or "-") for m in found
    ]
    headings = ("ID", "KIND", "STATE", "CREATED (UTC)", "TO")
    shown = len(headings) if roomy else len(headings) - 1
    output.table(headings[:shown], [row[:shown] for row in rows])
    if token is not None:
        output.note("There are more: --limit shows them.")


def show(message: _Message) -> None:
    """Show what became of one mail.

    That is whom it was for, how often it was tried, why it is not sent, and who had it sent again.

    Example:
      tollway notify show msg_…
    """
    with operator_api() as api:
        told = api.get(f"/v1/operator/messages/{_id(message)}")
    if current.as_json:
        output.out_json(told)
        return
    _facts(told)
    for each in told["resends"]:
        who = output.plain(each["actor"])
        output.out(f"  Sent again  {each['created_at']} by {who}; it was {output.plain(each['previous_state'])}")
    if told["state"] in {"dead", "unknown"}:
        output.note(f"Send it again with: tollway notify resend {output.plain(told['id'])}")


def resend(
    message: _Message,
    again: Annotated[bool, typer.Option("--again", help="Also if the mail server has accepted it before.")] = False,
) -> None:
    """Send a mail again, to the address that its account has now. Who did is noted with it.

    Doing it twice at once sends one mail. Its Message-ID stays, so that mail programs show one.

    Example:
      tollway notify resend msg_…
    """
    with operator_api() as api:
        seen = api.get(f"/v1/operator/messages/{_id(message)}")
        # Of what was seen: who asks twice about the same try asks once.
        key = f"{seen['id']}/{seen['attempts']}/{len(seen['resends'])}"
        told = api.post(f"/v1/operator/messages/{seen['id']}/resend", {"again": again}, idempotency_key=key)
    if current.as_json:
        output.out_json(told)
        return
    if told["state"] == "pending":
        output.out(f"{output.plain(told['id'])} is being sent to {output.plain(told['recipient'])}.")
    else:
        output.out(f"{output.plain(told['id'])} is {output.plain(told['state'])}.")


def preview(
    kind: Annotated[str, typer.Argument(help="Such as receipt; without one, all are listed.")] = "",
    form: Annotated[Literal["html", "text"], typer.Option("--format", help="What to show.")] = "text",
    catalog: Annotated[
        str, typer.Option("--catalog", metavar="FILE", help="In the name and colour of this catalog's brand.")
    ] = "",
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Write it there.")] = "",
    open_it: Annotated[bool, typer.Option("--open", help="Show the HTML in the browser.")] = False,
) -> None:
    """Show a mail with made-up facts, before any customer gets it.

    Examples:
      tollway notify preview
      tollway notify preview receipt --open
      tollway notify preview receipt --catalog catalogs/vatly.yaml
    """
    if not kind:
        kinds = _program("services.notify.preview").split()
        if current.as_json:
            output.out_json({"kinds": kinds})
        else:
            output.out("\n".join(kinds))
        return
    form = "html" if open_it else form
    brand = [_program("services.billing.catalog.brand", catalog).strip()] if catalog else []
    shown = _program("services.notify.preview", kind, form, *brand)
    path = out
    if open_it and not path:
        import tempfile

        with tempfile.NamedTemporaryFile("w", suffix=".html", prefix=f"tollway-{kind}-", delete=False) as file:
            path = file.name
    if path:
        try:
            Path(path).write_text(shown, encoding="utf-8")
        except OSError as error:
            raise CliError(f"cannot write {path}: {error.strerror}", code=USAGE) from error
    if current.as_json:
        output.out_json({"kind": kind, "format": form, "file": path or None, "content": None if path else shown})
    elif path:
        output.out(f"Written to {path}")
    else:
        output.out(shown.rstrip("\n"))
    if open_it:
        import webbrowser

        if not webbrowser.open(Path(path).absolute().as_uri()):
            output.note(f"Open it by hand: {Path(path).absolute().as_uri()}")


def _facts(told: dict[str, Any]) -> None:
    state = output.plain(told["state"])
    output.out(f"{output.plain(told['id'])}  {output.paint(state, _COLOURS.get(state, 'bold'))}")
    facts = (
        ("Kind", told["kind"]),
        ("About", told["about"]),
        ("Account", told["account_id"]),
        ("To", told["recipient"] or ("erased" if told["erased"] else "nobody")),
        ("Tries", told["attempts"]),
        ("Why", told["error"]),
        ("Created", told["created_at"]),
        ("Sent", told["sent_at"]),
        ("Message-ID", told["message_id"]),
    )
    for label, value in facts:
        if value is not None:
            output.out(f"  {label:<10}  {output.plain(value)}")


def _id(message: str) -> str:
    if not re.fullmatch(r"msg_[A-Za-z0-9]{1,90}", message):
        raise CliError(f"not a message's id: {message}", code=USAGE, next_step="tollway notify list shows them")
    return message


def _program(module: str, *arguments: str) -> str:
    """What one of the services' programs prints."""
    import subprocess

    installation.require()
    done = subprocess.run(  # noqa: S603 - our own module, and no shell
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        message = done.stderr.strip() or f"{module} ended with {done.returncode}"
        raise CliError(message, code=REFUSED if done.returncode == 1 else FAILED)
    return done.stdout
