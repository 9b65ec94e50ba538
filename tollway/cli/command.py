"""The options that every command has, and the one place where errors become exit codes."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tollway.cli import output
from tollway.cli.errors import FAILED, INTERRUPTED, CliError

_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_URL = Annotated[
    str | None,
    typer.Option("--api-url", metavar="URL", help="The gateway. Else TOLLWAY_API_URL, else the last one used."),
]


@dataclass
class Invocation:
    """What was asked for on this command line, before or after the command's name."""

    as_json: bool = False
    api_url: str | None = None
    org: str = ""


current = Invocation()


def with_options(function: Callable[..., Any]) -> Callable[..., None]:
    """Adds --json and --api-url to a command, and turns its errors into a message and an exit code."""

    @functools.wraps(function)
    def command(**values: Any) -> None:
        current.as_json |= values.pop("as_json")
        current.api_url = values.pop("api_url") or current.api_url
        try:
            function(**values)
        except CliError as error:
            output.show_error(error, as_json=current.as_json)
            raise typer.Exit(error.code) from None
        except KeyboardInterrupt:
            output.note("")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output has gone; nothing more can be told to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(FAILED) from None

    command.__doc__ = _as_written(inspect.cleandoc(function.__doc__ or ""))
    own = inspect.signature(function, eval_str=True)
    shared = [
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_JSON),
        inspect.Parameter("api_url", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_URL),
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.parameters.values()]
    signature = own.replace(parameters=[*parameters, *shared], return_annotation=None)
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return command


def _as_written(text: str) -> str:
    """Examples are shown line by line as they stand; the help's own paragraphs are wrapped."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(f"\b\n{each}" if each.startswith("Example") else each for each in paragraphs)
