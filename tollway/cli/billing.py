"""billing, billing upgrade, billing portal."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from tollway.cli import output
from tollway.cli.api import Api, resolve_key, resolve_url
from tollway.cli.command import current
from tollway.cli.errors import FAILED, INTERRUPTED, NOT_LOGGED_IN, REFUSED, CliError

POLL_S = 0.5
_CHECK_LATER = "The page stays open for a while. Check later with: tollway billing"

_NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only print the address.")]


def status() -> None:
    """Show the plan, its status, and when it renews or ends."""
    url = resolve_url(current.api_url)
    with Api(url, resolve_key(url)) as api:
        _show(api.get("/v1/billing"))


def upgrade(
    tier: Annotated[str, typer.Argument(help="The plan to buy; `tollway plans` lists them.")],
    no_browser: _NoBrowser = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the payment.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the payment.")] = 900,
) -> None:
    """Buy a plan: opens Stripe Checkout in your browser and waits until the plan is yours.

    Example: tollway billing upgrade pro
    """
    url = resolve_url(current.api_url)
    with Api(url, resolve_key(url)) as api:
        page = str(api.post("/v1/billing/checkout", {"tier": tier})["checkout_url"])
        if no_wait:
            _present(page, "To pay, open", {"checkout_url": page}, no_browser)
            return
        _present(page, "To pay, open", None, no_browser)
        billing = _wait(api, tier, timeout)
    if current.as_json:
        output.out_json({"checkout_url": page, **billing})
        return
    output.note(output.paint(f"Paid: you are on {output.plain(tier)}.", "green", stream=sys.stderr))
    _show(billing)


def portal(no_browser: _NoBrowser = False) -> None:
    """Open the billing portal: cards, invoices, cancelling."""
    url = resolve_url(current.api_url)
    with Api(url, resolve_key(url)) as api:
        page = str(api.post("/v1/billing/portal")["portal_url"])
    _present(page, "Your billing portal", {"portal_url": page}, no_browser)


def _show(billing: dict[str, Any]) -> None:
    if current.as_json:
        output.out_json(billing)
        return
    output.out(f"Plan: {output.plain(billing['plan'])}")
    output.out(f"Status: {output.plain(billing['status'])}")
    if end := billing.get("current_period_end"):
        output.out(f"{'Ends' if billing.get('cancel_at_period_end') else 'Renews'}: {output.plain(end)}")


def _present(page: str, lead: str, answer: dict[str, Any] | None, no_browser: bool) -> None:
    """Prints the address, always, and opens it where a person has a browser. With --json the answer goes to stdout."""
    address = output.plain(page)
    if current.as_json:
        if answer is not None:
            output.out_json(answer)
        else:
            output.note(f"{lead}: {address}")
    else:
        output.out(f"{lead}:\n  {output.paint(address, 'cyan')}")
    if not no_browser and _has_browser() and page.startswith(("https://", "http://")):
        import webbrowser

        # A browser that cannot be started is no failure: the address is on the screen.
        with contextlib.suppress(webbrowser.Error, OSError):
            webbrowser.open(page)


def _has_browser() -> bool:
    """Not over SSH without a display, where a text browser would take over the terminal."""
    if os.environ.get("BROWSER") or sys.platform in {"darwin", "win32"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _wait(api: Api, tier: str, timeout_s: float) -> dict[str, Any]:
    """The billing status once it shows the tier. Brief absences of the server are waited out."""
    deadline = time.monotonic() + timeout_s
    trouble: CliError | None = None
    try:
        with _spinner("Waiting for the payment (Ctrl-C stops waiting, not the payment)"):
            while time.monotonic() < deadline:
                try:
                    billing = api.get("/v1/billing")
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


@contextlib.contextmanager
def _spinner(text: str) -> Iterator[None]:
    if not sys.stderr.isatty():
        output.note(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
