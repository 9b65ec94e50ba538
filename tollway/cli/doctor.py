"""doctor: what is wrong with an installation, and how to mend it."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from tollway.cli import installation, output
from tollway.cli.command import current
from tollway.cli.errors import FAILED, CliError
from tollway.cli.progress import Progress, spinner

_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red"), "skip": ("skip", "dim")}
_COLUMN = 27


def doctor(
    env_file: Annotated[
        str, typer.Option("--env-file", metavar="FILE", help="NAME=value lines, such as .tollway/env.")
    ] = "",
) -> None:
    """Find what is wrong with an installation, and how to mend it.

    Looks at settings, Stripe, catalog, databases, NATS, mail server and gateway; changes nothing, prints no secret.
    It runs where the services run, with their environment. Exit code 1 when something is wrong.

    Examples:
      tollway doctor --env-file .tollway/env
      tollway doctor --json
    """
    import subprocess

    installation.require()
    command = [sys.executable, "-m", "services.doctor"]
    checks: list[dict[str, Any]] = []
    with (
        spinner("Looking at the installation", quiet=True) as progress,
        subprocess.Popen(  # noqa: S603 - our own module, and no shell
            command, env=installation.environment(env_file), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - asked for above
        checks += (_noted(json.loads(line), progress) for line in process.stdout)
        told = process.stderr.read() if process.stderr is not None else ""
    if process.returncode not in {0, 1} or not checks:
        raise CliError(f"the doctor itself failed: {told.strip().splitlines()[-1] if told.strip() else 'no word'}")
    if current.as_json:
        output.out_json({"ok": process.returncode == 0, "checks": checks})
    else:
        _show(checks)
    if process.returncode:
        raise typer.Exit(FAILED)


def _noted(check: dict[str, Any], progress: Progress) -> dict[str, Any]:
    progress.text = f"Looked at: {output.plain(check['check'])}"
    return check


def _show(checks: list[dict[str, Any]]) -> None:
    import textwrap

    columns = max(40, output.columns())
    for check in checks:
        mark, colour = _MARKS.get(str(check["state"]), ("?", "dim"))
        name = output.plain(check["check"])
        # The mark, the check's name, and a column of text that wraps in itself.
        room = columns - _COLUMN - 8
        lines = textwrap.wrap(output.plain(check["detail"]), room, break_on_hyphens=False) or [""]
        if check["fix"]:
            lines += textwrap.wrap(
                f"→ {output.plain(check['fix'])}", room, subsequent_indent="  ", break_on_hyphens=False
            )
        output.out(f"{output.paint(f'{mark:<4}', colour)}  {name:<{_COLUMN}}  {lines[0]}".rstrip())
        for line in lines[1:]:
            output.out(" " * (_COLUMN + 8) + line)
    counted = {state: sum(check["state"] == state for check in checks) for state in ("fail", "warn")}
    output.out()
    if not counted["fail"] and not counted["warn"]:
        output.out(output.paint("All is well.", "green"))
    else:
        output.out(f"{counted['fail']} wrong, {counted['warn']} to look at.")
