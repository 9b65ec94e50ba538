"""Pages that a person is sent to: the address is always printed, and opened where there is a browser."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, Any

import typer

from tollway.cli import output
from tollway.cli.command import current

NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only print the address.")]


def present(page: str, lead: str, answer: dict[str, Any] | None, no_browser: bool) -> None:
    """With --json the answer goes to stdout; without one yet, the address to stderr."""
    address = output.plain(page)
    if current.as_json:
        if answer is not None:
            output.out_json(answer)
        else:
            output.note(f"{lead}: {address}")
    else:
        output.out(f"{lead}:\n  {output.paint(address, 'cyan')}")
    if not no_browser and _has_browser() and page.startswith(("https://", "http://")):
        import webbrowser

        # A browser that cannot be started is no failure: the address is on the screen.
        with contextlib.suppress(webbrowser.Error, OSError):
            webbrowser.open(page)


def _has_browser() -> bool:
    """Not over SSH without a display, where a text browser would take over the terminal."""
    if os.environ.get("BROWSER") or sys.platform in {"darwin", "win32"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
