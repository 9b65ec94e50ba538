"""local token: what only an installation on this machine can do."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from tollway.cli import output
from tollway.cli.command import current
from tollway.cli.errors import FAILED, REFUSED, UNREACHABLE, CliError

DEFAULT_ISSUER = "http://127.0.0.1:12112"


def token(
    org: Annotated[str, typer.Option("--org", help="The organization; without one, the user's own account.")] = "",
    role: Annotated[str, typer.Option("--role", help="The user's role there: admin, member, ….")] = "admin",
    user: Annotated[str, typer.Option("--user", help="Who it is for.")] = "user_dev",
    expires_in: Annotated[int, typer.Option("--expires-in", help="Seconds.")] = 3600,
) -> None:
    """Print a token of local mode's own identity provider, which vouches for anybody.

    Example: curl -H "Authorization: Bearer $(tollway local token --org acme --role admin)" …
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
