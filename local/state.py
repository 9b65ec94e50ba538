"""The state folder of local mode: who uses it, the secrets made once, and what runs now.

`.tollway/` holds `secrets.env` (mode 0600), `env` (what every process was given; `set -a; . .tollway/env`), `run.json`
(what runs, for people and tests), `clock-offset`, `logs/`, and a folder per part. `python -m local.state clean`
removes it. Standard library only: it also runs before anything is installed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class StateError(RuntimeError):
    """The folder cannot be used; the message says why and what to do."""


def default_folder() -> Path:
    return Path(os.environ.get("TOLLWAY_STATE") or ".tollway").resolve()


class State:
    """The folder, held by one supervisor at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self._lock: int | None = None

    def hold(self) -> None:
        """Makes the folder if needed and takes it for this process. The kernel gives it back when we die."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise StateError(
                f"{error.filename} belongs to somebody else (was it made as root?). Remove it as its owner, or set "
                "TOLLWAY_STATE to another folder"
            ) from error
        except OSError as error:
            raise StateError(f"cannot use the state folder {self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 32).decode().strip() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise StateError(
                f"tollway already runs on {self.folder} (process {holder}). Stop it first, or set TOLLWAY_STATE and "
                "the ports to others"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def secrets(self) -> dict[str, str]:
        """The secrets of this installation, made at the first start and kept."""
        path = self.folder / "secrets.env"
        known = _read_env(path)
        fresh = {
            "TOLLWAY_POSTGRES_PASSWORD": secrets.token_hex(24),
            "TOLLWAY_SECRET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "TOLLWAY_OPERATOR_TOKEN": f"op_{secrets.token_hex(24)}",
            "TOLLWAY_RPC_TOKEN": secrets.token_hex(24),
            "STRIPE_API_KEY": f"sk_test_{secrets.token_hex(16)}",
            "STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(24)}",
        }
        if missing := fresh.keys() - known.keys():
            known |= {name: fresh[name] for name in missing}
            self.write("secrets.env", "".join(f"{name}={value}\n" for name, value in sorted(known.items())))
        return known

    def write_env(self, environment: Mapping[str, str]) -> None:
        self.write("env", "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(environment.items())))

    def write_run(self, facts: Mapping[str, Any]) -> None:
        self.write("run.json", json.dumps(facts, indent=2) + "\n")

    def forget_run(self) -> None:
        (self.folder / "run.json").unlink(missing_ok=True)

    def crashed_before(self) -> bool:
        """True when the last supervisor left without saying goodbye: its children may still be dying."""
        return (self.folder / "run.json").exists()

    def write(self, name: str, text: str) -> None:
        """Replaces a file as a whole, readable by us only: a reader sees the old text or the new one."""
        beside = self.folder / f".{name}.new"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        beside.replace(self.folder / name)


def _read_env(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    lines = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {name: value for name, _, value in lines}


def _clean(folder: Path) -> int:
    if not folder.exists():
        print(f"nothing to remove: {folder} does not exist")
        return 0
    if not (folder / "lock").exists():
        print(f"{folder} does not look like a state folder of tollway; remove it by hand", file=sys.stderr)
        return 1
    state = State(folder)
    try:
        state.hold()
    except StateError as error:
        print(error, file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    state.release()
    print(f"removed {folder}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] != ["clean"]:
        sys.exit("usage: python -m local.state clean")
    sys.exit(_clean(default_folder()))
