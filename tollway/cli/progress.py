"""What a person sees while something takes its time: a spinner on a terminal, one line elsewhere."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Iterator

from tollway.cli import output

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_EVERY_S = 0.1


class Progress:
    """Says how far it is; the text may change while it runs."""

    def __init__(self, text: str) -> None:
        self.text = text


@contextlib.contextmanager
def spinner(text: str, *, quiet: bool = False) -> Iterator[Progress]:
    """On standard error, so that answers stay alone on standard output. `quiet`: nothing where there is no terminal."""
    progress = Progress(text)
    if not sys.stderr.isatty():
        if not quiet:
            output.note(text)
        yield progress
        return
    done = threading.Event()
    frames = _FRAMES if _can_draw() else "|/-\\"

    def turn() -> None:
        for frame in itertools.cycle(frames):
            sys.stderr.write(f"\r\x1b[K{output.paint(frame, 'cyan', stream=sys.stderr)} {_fitting(progress.text)}")
            sys.stderr.flush()
            if done.wait(_EVERY_S):
                break

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        done.set()
        thread.join()
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _fitting(text: str) -> str:
    """On one line of the terminal: a second one would not be wiped out."""
    room = output.columns() - 3
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"


def _can_draw() -> bool:
    try:
        _FRAMES.encode(sys.stderr.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
