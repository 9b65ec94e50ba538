"""The page on the command line, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer.main

from tollway.cli.errors import EXIT_CODES
from tollway.cli.main import app
from tools.references.markdown import anchor, cell, code, joined, table

_EVERYWHERE = {"as_json", "api_url"}  # options that every command has


def page() -> str:
    """Every command with its arguments and options, in the words of its help."""
    top = typer.main.get_command(app)
    found = list(_commands(top, ["tollway"]))
    contents = [(f"[`{name}`](#{anchor(name)})", _paragraphs(command)[0]) for name, command in found]
    return joined(
        "# The command line",
        "`tollway`, which `pip install tollway` brings. Every command takes `--json` (a stable answer for programs, "
        "refusals too), `--api-url URL` (else `TOLLWAY_API_URL`, else the gateway used last) and `--help`; `--version` "
        f"and completion belong to `tollway` itself. {EXIT_CODES}",
        table(("Command", "Does"), contents),
        *(_command(name, command) for name, command in found),
    )


def _commands(group: Any, path: list[str]) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        inner = getattr(command, "commands", None)
        if inner is None or command.invoke_without_command:
            yield " ".join([*path, name]), command
        if inner is not None:
            yield from _commands(command, [*path, name])


def _paragraphs(command: Any) -> list[str]:
    text = inspect.cleandoc(command.help or "").replace("\f", "").replace("\b", "")
    return [part.strip("\n") for part in re.split(r"\n\s*\n", text) if part.strip()] or [""]


def _command(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name not in _EVERYWHERE]
    usage = " ".join([name, *map(_placeholder, arguments)])
    shown: list[str] = []
    for paragraph in _paragraphs(command):
        lines = paragraph.splitlines()
        match = re.fullmatch(r"Examples?: (.+)", " ".join(paragraph.split()))
        if lines[0].strip() == "Examples:":
            shown.append("```sh\n" + "\n".join(line.strip() for line in lines[1:]) + "\n```")
        elif match:
            shown.append("For example " + ", ".join(code(each) for each in re.split(r", (?=tollway )", match[1])) + ".")
        else:
            shown.append(" ".join(paragraph.split()))
    rows = [(code(_placeholder(each)), each.help or "") for each in arguments if each.help]
    rows += [(code(_option(each)), _about(each)) for each in options]
    return joined(f"## {name}", *shown, f"Usage: `{usage}`" if arguments else "", table(("Takes", ""), rows))


def _placeholder(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).strip("[]")
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    names = "/".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.metavar or option.type.name.upper()}"


def _about(option: Any) -> str:
    default = "" if option.is_flag or option.default in (None, "", ()) or callable(option.default) else option.default
    return " ".join(filter(None, (cell(option.help or ""), f"`{default}` unless given." if default != "" else "")))
