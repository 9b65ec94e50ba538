"""Every `tollway …` that a document shows is a command that there is, with the options that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.unit.docs.test_pages import PAGES, ROOT
from tollway.cli.main import app

CLI = typer.main.get_command(app)
# In code: a line of a block, or between backticks. `tollway-…` and `tollway.client` are no commands.
_INLINE = re.compile(r"`(tollway [a-z][^`]*)`")
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_IN_LINE = re.compile(
    r"(?:^|[|(;]\s*|&&\s*|\$\(|\b(?:until|docker run --rm tollway|run --rm tools)\s+)(tollway [a-z][^|;)#\n]*)",
    re.MULTILINE,
)


def commands(page: Path) -> list[str]:
    text = page.read_text().replace("\\\n", " ")
    found = _INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    for block in _BLOCK.findall(text):
        found += _IN_LINE.findall(block)
    return found


def complaint(line: str) -> str:
    """Why the line is no command of ours; empty when it is one."""
    words = line.split()[1:]
    command: Any = CLI
    while hasattr(command, "commands") and words and re.fullmatch(r"[a-z][a-z-]*(\|[a-z-]+)*", words[0]):
        names = words[0].split("|")
        if missing := [name for name in names if name not in command.commands]:
            return f"no command {missing[0]!r} under {command.name}"
        command, words = command.commands[names[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "--json", "--api-url"}
    unknown = [word.partition("=")[0] for word in words if word.startswith("--") and len(word) > 2]
    unknown = [word for word in unknown if word not in known]
    return f"{command.name} has no {unknown[0]}" if unknown else ""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "seeds.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_command_of_a_page_exists(page: Path) -> None:
    wrong = {line: why for line in commands(page) if (why := complaint(line))}
    assert not wrong


def test_commands_are_found_and_wrong_ones_are_told() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60
    assert complaint("tollway billing upgrad pro").startswith("no command 'upgrad'")
    assert complaint("tollway reconcile --dryrun") == "reconcile has no --dryrun"
    assert complaint("tollway admin import --dry-run") == ""
