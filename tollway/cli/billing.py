"""billing, billing status, upgrade, portal."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from tollway.cli import output
from tollway.cli.browser import NoBrowser, present
from tollway.cli.command import current
from tollway.cli.connection import Connection, Org, connect
from tollway.cli.errors import FAILED, INTERRUPTED, NOT_LOGGED_IN, REFUSED, USAGE, CliError
from tollway.cli.progress import spinner

POLL_S = 0.5
_CHECK_LATER = "The page stays open for a while. Check later with: tollway billing"


def status(org: Org = "") -> None:
    """Show the plan, its status, and when it renews or ends.

    Example:
      tollway billing status --org adas-relay
    """
    with connect(org) as here:
        _show(here.api.get(here.path("/billing")))


def upgrade(
    tier: Annotated[
        str,
        typer.Argument(metavar="[PLAN]", help="The plan to buy; needed where several are sold.", show_default=False),
    ] = "",
    no_browser: NoBrowser = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the payment.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long to wait.")] = 900,
    org: Org = "",
) -> None:
    """Buy a plan: opens Stripe Checkout, waits for the payment.

    Examples:
      tollway billing upgrade pro
      tollway billing upgrade --org adas-relay
    """
    with connect(org) as here:
        tier = tier or _only_plan(here)
        page = str(here.api.make(here.path("/billing/checkout"), {"tier": tier})["url"])
        if no_wait:
            present(page, "To pay, open", {"checkout_url": page}, no_browser)
            return
        present(page, "To pay, open", None, no_browser)
        billing = _wait(here, tier, timeout)
    if current.as_json:
        output.out_json({"checkout_url": page, **billing})
        return
    output.note(output.paint(f"Paid: you are on {output.plain(tier)}.", "green", stream=sys.stderr))
    _show(billing)


def portal(no_browser: NoBrowser = False, org: Org = "") -> None:
    """Open the billing portal: cards, invoices, cancelling.

    Example:
      tollway billing portal
    """
    with connect(org) as here:
        page = str(here.api.post(here.path("/billing/portal"))["url"])
    present(page, "Your billing portal", {"portal_url": page}, no_browser)


def _only_plan(here: Connection) -> str:
    """The plan that is for sale. Raises CliError (exit code 2) where there are several, or none."""
    sold = [str(plan["tier"]) for plan in here.api.get("/v1/plans")["plans"] if plan["prices"]]
    if len(sold) != 1:
        step = f"tollway billing upgrade {'|'.join(map(output.plain, sold))}" if sold else "tollway plans lists them"
        raise CliError("which plan?", code=USAGE, next_step=step)
    return sold[0]


def _show(billing: dict[str, Any]) -> None:
    if current.as_json:
        output.out_json(billing)
        return
    output.out(f"Plan: {output.plain(billing['plan'])}")
    output.out(f"Status: {output.plain(billing['status'])}")
    if end := billing.get("current_period_end"):
        output.out(f"{'Ends' if billing.get('cancel_at_period_end') else 'Renews'}: {output.plain(end)}")
    if end := billing.get("grace_end"):
        output.out(f"Grace until: {output.plain(end)}")
        output.note("A payment failed. Pay or change the card with: tollway billing portal")


def _wait(here: Connection, tier: str, timeout_s: float) -> dict[str, Any]:
    """The billing status once it shows the tier. Brief absences of the server are waited out."""
    deadline = time.monotonic() + timeout_s
    trouble: CliError | None = None
    try:
        with spinner("Waiting for the payment (Ctrl-C stops waiting, not the payment)"):
            while time.monotonic() < deadline:
                try:
                    billing = here.api.get(here.path("/billing"))
                    trouble = None
                except CliError as error:
                    if error.code in {NOT_LOGGED_IN, REFUSED}:
                        raise
                    trouble = error
                else:
                    if billing.get("plan") == tier:
                        return billing
                time.sleep(max(0.0, min(POLL_S, deadline - time.monotonic())))
    except KeyboardInterrupt:
        raise CliError("stopped waiting", code=INTERRUPTED, next_step=_CHECK_LATER) from None
    if trouble is not None:
        raise trouble
    raise CliError(f"no payment within {timeout_s:g} s", code=FAILED, next_step=_CHECK_LATER)
