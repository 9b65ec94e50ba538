"""reconcile; events list, show, replay: with the operator's token, from TOLLWAY_OPERATOR_TOKEN."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import typer

from tollway.cli import output
from tollway.cli.admin_accounts import operator_api
from tollway.cli.command import current
from tollway.cli.errors import USAGE, CliError
from tollway.cli.progress import spinner

_Event = Annotated[str, typer.Argument(metavar="EVENT_ID", help="Stripe's: evt_….")]


def reconcile(
    account: Annotated[str, typer.Option("--account", metavar="ID", help="Only this one.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what differs, change nothing.")] = False,
) -> None:
    """Compare what is held here with Stripe, and repair it.

    Example:
      tollway reconcile --dry-run
    """
    total: dict[str, Any] = {"drifts": [], "accounts": 0, "missed_events": 0, "busy": 0}
    token: str | None = None
    with operator_api() as api, spinner("Comparing with Stripe", quiet=True) as progress:
        while True:
            body = {"account_id": account or None, "dry_run": dry_run, "page_token": token}
            page = api.post("/v1/operator/reconcile", body)
            for name in total:
                total[name] += page[name]
            progress.text = f"Comparing with Stripe: {total['accounts']} accounts so far"
            if not (token := page["next_page_token"]):
                break
    if current.as_json:
        output.out_json(total)
        return
    if total["drifts"]:
        rows = [(d["account_id"], d["object_id"], d["field"], d["ours"], d["stripes"]) for d in total["drifts"]]
        output.table(("ACCOUNT", "OBJECT", "FIELD", "OURS", "STRIPE'S"), rows)
    done = "would be repaired" if dry_run else "repaired"
    output.prose(
        f"{total['accounts']} accounts compared, {len(total['drifts'])} differences {done}, "
        f"{total['missed_events']} events had never arrived."
    )


def list_events(
    status: Annotated[str, typer.Option("--status", help="pending, applied, ignored, ignored_foreign, dead.")] = "",
    account: Annotated[str, typer.Option("--account", metavar="ID", help="Only this one's.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 100,
) -> None:
    """List the events that Stripe sent, newest first.

    Example:
      tollway events list --status dead
    """
    if not re.fullmatch(r"[a-z_]*", status) or not re.fullmatch(r"[A-Za-z0-9_]*", account):
        raise CliError("not a status, or not an account's id", code=USAGE)
    with operator_api() as api:
        path = f"/v1/operator/stripe-events?status={status}&account_id={account}&page_size={limit}"
        found = api.get(path)
    if current.as_json:
        output.out_json(found)
        return
    rows = [(e["id"], e["type"], e["status"], e["account_id"] or "-", e["received_at"]) for e in found["events"]]
    output.table(("ID", "TYPE", "STATUS", "ACCOUNT", "RECEIVED"), rows)


def show(event_id: _Event) -> None:
    """Show one event of Stripe's with its payload.

    Example:
      tollway events show evt_…
    """
    with operator_api() as api:
        found = api.get(f"/v1/operator/stripe-events/{_id(event_id)}")
    if current.as_json:
        output.out_json(found)
        return
    output.out(f"{output.plain(found['id'])} {output.plain(found['type'])}: {output.plain(found['status'])}")
    output.out(output.plain(json.dumps(found["payload"], ensure_ascii=False)))


def replay(event_id: _Event) -> None:
    """Apply an event of Stripe's again: its account is read anew.

    Example:
      tollway events replay evt_…
    """
    with operator_api() as api:
        done = api.post(f"/v1/operator/stripe-events/{_id(event_id)}/replay")
    if current.as_json:
        output.out_json(done)
    else:
        output.out(f"{output.plain(done['id'])}: its account is being read again.")


def _id(event_id: str) -> str:
    if not re.fullmatch(r"evt_[A-Za-z0-9_]{1,200}", event_id):
        raise CliError(f"not an event's id: {event_id}", code=USAGE, next_step="tollway events list shows them")
    return event_id
