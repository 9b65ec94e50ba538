"""What is asked of a person before something cannot be taken back."""

from __future__ import annotations

import sys

from tollway.cli.errors import FAILED, USAGE, CliError


def confirm(question: str, *, yes: bool) -> None:
    """Raises CliError when the answer is no, and (exit code 2) when nobody is there to answer. `yes`: it is given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError("not confirmed", code=USAGE, next_step="add --yes")
    import typer

    if not typer.confirm(question, err=True):
        raise CliError("nothing was done", code=FAILED)


def ask(what: str, usage: str) -> str:
    """A value that the command line left out. Raises CliError (exit code 2) when nobody is there to give it."""
    if not sys.stdin.isatty():
        raise CliError(f"{what.lower()} is missing", code=USAGE, next_step=usage)
    import typer

    return str(typer.prompt(what, err=True)).strip()
