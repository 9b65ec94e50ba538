"""Builds `.venv` from `requirements.lock`, and again when the lock changed: `python3 local/bootstrap.py`.

It runs before anything is installed, so it uses the standard library only. Every package's hash is checked.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "built-from"
LOCK = ROOT / "requirements.lock"
PROJECT = ROOT / "pyproject.toml"


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what says so
        return _fail(f"tollway needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    with PROJECT.open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two `make` at once build one environment
        wanted = _wanted()
        if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
            return 0
        return _build(wanted)


def _wanted() -> str:
    """What the environment has to be built from; its folder too, because scripts in it hold their own path."""
    digest = hashlib.sha256(LOCK.read_bytes() + PROJECT.read_bytes()).hexdigest()
    return f"{digest} {VENV}\n"


def _build(wanted: str) -> int:
    began = time.monotonic()
    if STAMP.exists() and not STAMP.read_text().endswith(f" {VENV}\n"):
        shutil.rmtree(VENV)  # it was moved here: its scripts point elsewhere
    if not _works(PYTHON):
        print(f"Making .venv with Python {sys.version.split()[0]} ({sys.executable})", flush=True)
        if (problem := _create()) is not None:
            return _fail(problem)
    STAMP.unlink(missing_ok=True)
    total = sum(1 for line in LOCK.read_text().splitlines() if "==" in line and not line.startswith(" "))
    print(f"Installing the packages of requirements.lock into .venv (up to {total}, hashes checked)", flush=True)
    steps = (
        ["install", "--require-hashes", "--requirement", str(LOCK)],
        ["install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
    )
    for step in steps:
        if not _pip(step, _progress(total)):
            return _fail("pip could not install what tollway needs; its own words are above")
    STAMP.write_text(wanted)
    print(f".venv is ready ({time.monotonic() - began:.0f} s)", flush=True)
    return 0


def _works(python: Path) -> bool:
    return python.exists() and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def _create() -> str | None:
    """Makes the empty environment; gives what to do when it cannot be made."""
    shutil.rmtree(VENV, ignore_errors=True)
    whole = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if whole.returncode == 0:
        return None
    # Debian keeps ensurepip in a package of its own. Another pip can serve the environment from outside.
    shutil.rmtree(VENV, ignore_errors=True)
    bare = [sys.executable, "-m", "venv", "--without-pip", str(VENV)]
    if subprocess.run(bare, capture_output=True, check=False).returncode == 0 and _outside_pip():
        return None
    said = (whole.stderr.strip() or whole.stdout.strip())[-800:]
    shutil.rmtree(VENV, ignore_errors=True)
    return f"Python cannot make a virtual environment here (on Debian: apt install python3-venv). It said:\n{said}"


def _outside_pip() -> bool:
    command = [sys.executable, "-m", "pip", "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _pip(arguments: list[str], show: Callable[[str], None]) -> bool:
    inside = subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    command = [str(PYTHON), "-m", "pip"] if inside else [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        [*command, *arguments, "--progress-bar", "off", "--no-warn-script-location"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for with PIPE
        for line in process.stdout:
            lines.append(line)
            show(line)
    if process.returncode != 0:
        print("".join(lines[-40:]), file=sys.stderr)
    return process.returncode == 0


def _progress(total: int) -> Callable[[str], None]:
    """Tells how far pip is, at most every five seconds."""
    collected = 0
    spoke = time.monotonic()

    def show(line: str) -> None:
        nonlocal collected, spoke
        collected += line.startswith("Collecting ")
        if line.startswith("Installing collected packages") and collected:
            print(f"  {collected} packages collected, unpacking", flush=True)
            collected = 0
        elif time.monotonic() - spoke > 5 and collected:
            spoke = time.monotonic()
            print(f"  {collected} of at most {total} packages collected", flush=True)

    return show


def _fail(message: str) -> int:
    print(f"make: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
