"""local token, advance, status: what only an installation on this machine can do."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollway.cli import durations, output
from tollway.cli.command import current
from tollway.cli.errors import FAILED, REFUSED, UNREACHABLE, USAGE, CliError

if TYPE_CHECKING:
    import httpx

STEP_S = 120.0  # the longest that one instant may take, with everything that comes of it
DEFAULT_CLOCK_PORT = "12113"
DEFAULT_ISSUER = "http://127.0.0.1:12112"


def token(
    org: Annotated[str, typer.Option("--org", help="The organization; without one, the user's own account.")] = "",
    role: Annotated[str, typer.Option("--role", help="The user's role there: admin, member, ….")] = "admin",
    user: Annotated[str, typer.Option("--user", help="Who it is for.")] = "user_dev",
    expires_in: Annotated[int, typer.Option("--expires-in", help="Seconds.")] = 3600,
) -> None:
    """Print a token of local mode's own identity provider.

    It vouches for anybody.

    Example:
      curl -H "Authorization: Bearer $(tollway local token --org acme)" …
    """
    import httpx

    issuer = (os.environ.get("TOLLWAY_CLERK_ISSUER") or DEFAULT_ISSUER).rstrip("/")
    body = {"user": user, "org": org, "role": role, "expires_in": expires_in}
    try:
        answer = httpx.post(f"{issuer}/token", json=body, timeout=10, trust_env=False)
        told = answer.json()
    except httpx.HTTPError as error:
        step = "start it with: make run; or set TOLLWAY_CLERK_ISSUER to where it is (.tollway/env has it)"
        raise CliError(f"cannot reach {issuer}: {error}", code=UNREACHABLE, next_step=step) from error
    except ValueError:
        told = {}
    if answer.status_code != 200 or "token" not in told:
        message = str(told.get("error") or f"{issuer} is no identity provider of local mode")
        raise CliError(message, code=REFUSED if told else FAILED)
    if current.as_json:
        output.out_json(told)
    else:
        output.out(str(told["token"]))


def advance(
    by: Annotated[str, typer.Argument(metavar="TIME", help="How far: 90s, 30m, 24h, 35d.")],
) -> None:
    """Move the clock of local mode, through all that falls due.

    It stops at each instant at which Stripe's sandbox has something to do, and goes on when webhooks, events and mails
    of that instant have arrived. Time never goes back; signatures and tokens keep to the wall clock.

    Example:
      tollway local advance 35d
    """
    import httpx

    length = durations.seconds(by)
    happened: Counter[str] = Counter()
    last: dict[str, Any] = {}
    try:
        timeout = httpx.Timeout(10, read=STEP_S)
        with (
            httpx.Client(base_url=_clock(), timeout=timeout, trust_env=False) as client,
            client.stream("POST", "/advance", json={"seconds": length}) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise _refused(answer)
            for line in answer.iter_lines():
                last = json.loads(line)
                if "error" in last:
                    raise CliError(str(last["error"]), code=REFUSED, next_step="see what waits: tollway local status")
                happened.update(last["events"])
                if not current.as_json and last["events"]:
                    what = ", ".join(output.plain(event) for event in last["events"])
                    output.aside(f"{output.plain(last['now'])}  {what}")
    except (httpx.HTTPError, ValueError) as error:
        raise _away(error) from error
    if not last.get("arrived"):
        raise CliError("the clock stopped on its way", next_step="see where: tollway local status")
    if current.as_json:
        ahead = last["offset_seconds"]
        output.out_json({"now": last["now"], "offset_seconds": ahead, "events": dict(sorted(happened.items()))})
    else:
        output.out(f"It is {output.plain(last['now'])}; {happened.total()} events of Stripe on the way.")


def status() -> None:
    """Show the clock of local mode, and what falls due next.

    Example:
      tollway local status
    """
    import httpx

    try:
        answer = httpx.get(_clock(), timeout=30, trust_env=False)
        told = answer.json() if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError) as error:
        raise _away(error) from error
    if answer.status_code != 200:
        raise _refused(answer)
    if current.as_json:
        output.out_json(told)
        return
    days, rest = divmod(int(told["offset_seconds"]), 86_400)
    output.out(f"Now:      {output.plain(told['now'])}")
    output.out(f"Ahead:    {days} d {rest // 3600} h of the wall clock")
    output.out(f"Next due: {output.plain(told['next_due'] or 'nothing')}")
    waiting = ", ".join(f"{count} {output.plain(place)}" for place, count in told["waiting"].items())
    output.out(f"Waiting:  {waiting or 'nothing'}")


def _clock() -> str:
    port = os.environ.get("TOLLWAY_CLOCK_PORT") or DEFAULT_CLOCK_PORT
    if not (port.isascii() and port.isdigit()):
        raise CliError(f"TOLLWAY_CLOCK_PORT is not a port: {port}", code=USAGE)
    return f"http://127.0.0.1:{port}"


def _refused(answer: httpx.Response) -> CliError:
    try:
        told = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return CliError(f"{_clock()} is no clock of local mode", next_step="start it with: make run")
    return CliError(told, code=UNREACHABLE if answer.status_code == 503 else REFUSED)


def _away(error: Exception) -> CliError:
    message = f"cannot reach the clock of local mode at {_clock()}: {error}"
    step = "only local mode has one: make run; set TOLLWAY_CLOCK_PORT to where it is (.tollway/env has it)"
    return CliError(message, code=UNREACHABLE, next_step=step)
