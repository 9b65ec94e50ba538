"""login through the browser: a code is shown here and approved there (RFC 8628)."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from tollway.cli import browser, config, output
from tollway.cli.api import Api
from tollway.cli.command import current
from tollway.cli.errors import FAILED, INTERRUPTED, REFUSED, UNREACHABLE, CliError
from tollway.cli.progress import spinner

_AGAIN = "tollway login"
_SLOWER_S = 5


def by_browser(url: str, no_browser: bool) -> None:
    """Waits until a person has approved the code; stores the session. Raises CliError when that does not happen."""
    with Api(url) as api:
        begun = api.post("/v1/device/code", {"client_name": _this_computer()})
        code = output.plain(begun["user_code"])
        say = output.note if current.as_json else output.out
        say(f"Your code: {output.paint(code, 'bold')}")
        page = str(begun["verification_uri_complete"])
        browser.present(page, "Approve it, if the page shows the same code", None, no_browser)
        granted = _wait(api, begun)
    expires = datetime.now(UTC) + timedelta(seconds=int(granted["expires_in"]))
    session = config.Session(
        str(granted["access_token"]),
        str(granted["email"]),
        expires.isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
    facts = granted["account"]
    account = config.Account(str(facts["id"]), "", str(facts["slug"]), str(facts["name"]), str(facts["email"]))
    stored = config.load()
    stored.sign_in(url, session, account)
    config.save(stored)
    if current.as_json:
        output.out_json({"account_id": account.id, "slug": account.slug, "email": session.email, "api_url": url})
        return
    output.out(f"Logged in to {url} as {output.plain(session.email)}.")
    output.out(f"Selected {output.plain(account.name or account.slug)} ({output.plain(account.slug)}).")
    output.note(output.paint("Others: tollway orgs list, tollway orgs select SLUG", "dim", stream=sys.stderr))


def _wait(api: Api, begun: dict[str, Any]) -> dict[str, Any]:
    """What the poll grants. Brief absences of the server are waited out."""
    interval = float(begun["interval"])
    deadline = time.monotonic() + float(begun["expires_in"])
    try:
        with spinner("Waiting for your approval in the browser (Ctrl-C stops)"):
            while time.monotonic() < deadline:
                time.sleep(interval)  # the server's wish between two polls
                try:
                    return api.post("/v1/device/token", {"device_code": begun["device_code"]})
                except CliError as error:
                    interval = _next_interval(error, interval)
    except KeyboardInterrupt:
        raise CliError("stopped waiting; nobody is logged in", code=INTERRUPTED, next_step=_AGAIN) from None
    raise CliError("nobody approved the code in time", code=FAILED, next_step=_AGAIN)


def _next_interval(error: CliError, interval: float) -> float:
    """How long to wait before the next poll. Raises the error that ends the login."""
    match (error.problem or {}).get("error"):
        case "authorization_pending":
            return interval
        case "slow_down":
            return interval + _SLOWER_S
        case "access_denied":
            raise CliError("the login was refused in the browser", code=REFUSED, next_step=_AGAIN) from None
        case "expired_token" | "invalid_grant":
            raise CliError("the code is not good any more", code=FAILED, next_step=_AGAIN) from None
    if error.code == UNREACHABLE:
        return interval
    raise error


def _this_computer() -> str:
    import socket

    name = output.plain(socket.gethostname()).encode("ascii", "replace").decode()
    return f"tollway on {name}"[:100] if name.strip() else "tollway"
