"""Programs of the installation itself: they work in a checkout or the container image, where the services are."""

from __future__ import annotations

import os

from tollway.cli.errors import USAGE, CliError


def require() -> None:
    """Raises CliError (exit code 2) where there are no services."""
    import importlib.util

    if importlib.util.find_spec("services") is None:
        step = "run it in the checkout or in the container image"
        raise CliError("the services of tollway are not installed here", code=USAGE, next_step=step)


def environment(env_file: str) -> dict[str, str]:
    """This process's, with the NAME=value lines of the file on top. Raises CliError (exit code 2)."""
    import shlex
    from pathlib import Path

    found = dict(os.environ)
    if not env_file:
        return found
    try:
        text = Path(env_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {env_file}", code=USAGE, next_step="local mode's is .tollway/env") from error
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            words = [""]
        words = words[1:] if words[:1] == ["export"] else words
        if not words:
            continue
        name, mark, value = words[0].partition("=")
        if len(words) != 1 or not mark or not name.isidentifier():
            raise CliError(f"{env_file}, line {number}: NAME=value is expected", code=USAGE)
        found[name] = value
    return found
