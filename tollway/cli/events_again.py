"""events republish, snapshot: with the operator's token, from TOLLWAY_OPERATOR_TOKEN."""

from __future__ import annotations

from typing import Annotated

import typer

from tollway.cli import output
from tollway.cli.admin_accounts import operator_api
from tollway.cli.admin_customers import checked_time, pages
from tollway.cli.command import current

SERVICES = ("billing", "quota")


def republish(
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Published then or later; else all that are kept.")
    ] = "",
) -> None:
    """Publish events again, to refill a stream that was lost. Consumers drop what they have seen.

    Events are kept for at least seven days after they were published.

    Example:
      tollway events republish --since 2026-04-01T12:00:00Z
    """
    from_time = checked_time(since)
    with operator_api() as api:
        counts = {
            name: pages(api, "/v1/operator/events/republish", {"service": name, "since": from_time}, "events")
            for name in SERVICES
        }
    if current.as_json:
        output.out_json({"events": counts})
        return
    told = ", ".join(f"{count} of {name}" for name, count in counts.items())
    output.out(f"Events that are published again: {told}.")


def snapshot() -> None:
    """Announce what every account has, for a new subscriber.

    Example:
      tollway events snapshot
    """
    with operator_api() as api:
        count = pages(api, "/v1/operator/events/snapshot", {}, "accounts")
    if current.as_json:
        output.out_json({"accounts": count})
    else:
        output.out(f"{count} accounts are announced as they are now.")
