"""catalog check, catalog push: the operator's commands on a price list.

What a catalog may say is billing's to know, and only its installation can push one. So these run its own programs, and
work where the services are installed: in a checkout or the container image.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tollway.cli import installation, output
from tollway.cli.command import current
from tollway.cli.errors import FAILED, REFUSED, CliError
from tollway.cli.progress import spinner

_File = Annotated[str, typer.Argument(metavar="FILE", help="The catalog, YAML.")]
_CONFIG = 78  # EX_CONFIG of sysexits.h: what the services end with when a setting is wrong


def check(file: _File) -> None:
    """Check a catalog.

    What is wrong is told by file, line and field, with what was expected.

    Example:
      tollway catalog check catalogs/vatly.yaml
    """
    _run("services.billing.catalog", file)


def push(
    file: _File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would change.")] = False,
) -> None:
    """Put what a catalog sells on sale at Stripe.

    That is products, prices, meters, the portal and the webhook endpoint. Running it
    again changes nothing. It takes billing's settings from the environment.

    Example:
      set -a; . .tollway/env; tollway catalog push catalogs/vatly.yaml --dry-run
    """
    _run("services.billing.push", *(["--dry-run"] if dry_run else []), "--", file)


def _run(module: str, *arguments: str) -> None:
    import subprocess

    installation.require()
    with spinner("At work on the catalog", quiet=True):
        done = subprocess.run(  # noqa: S603 - our own module, and no shell
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
        )
    told = done.stdout.splitlines()
    if done.returncode:
        message = done.stderr.strip() or f"{module} ended with {done.returncode}"
        raise CliError(message, code=REFUSED if done.returncode in {1, _CONFIG} else FAILED)
    if current.as_json:
        output.out_json({"lines": told})
    else:
        output.out("\n".join(told))
