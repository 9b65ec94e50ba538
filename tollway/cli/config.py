"""The one file the CLI keeps: which server, and the API keys of the accounts there. Readable by its owner only."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tollway.cli.errors import CliError

DEFAULT_API_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Account:
    """An account as sign-up or login told it; name, slug and email are empty after a login with a bare key."""

    id: str
    api_key: str = field(repr=False)
    slug: str = ""
    name: str = ""
    email: str = ""


@dataclass
class Server:
    current: str = ""
    accounts: dict[str, Account] = field(default_factory=dict)


@dataclass
class Config:
    """`api_url` is the server used last; keys belong to the server that issued them and are sent to no other."""

    api_url: str = ""
    servers: dict[str, Server] = field(default_factory=dict)

    def account(self, api_url: str) -> Account | None:
        server = self.servers.get(api_url)
        return server.accounts.get(server.current) if server else None

    def remember(self, api_url: str, account: Account) -> None:
        """Makes it the current account there. Other accounts' keys stay."""
        server = self.servers.setdefault(api_url, Server())
        server.accounts[account.id] = account
        server.current = account.id
        self.api_url = api_url

    def forget(self, api_url: str) -> Account | None:
        """Takes out the current account's key there; returns what was taken out."""
        server = self.servers.get(api_url)
        if server is None:
            return None
        gone = server.accounts.pop(server.current, None)
        server.current = next(iter(server.accounts), "")
        return gone


def path() -> Path:
    from platformdirs import user_config_path

    return user_config_path("tollway", appauthor=False) / "config.json"


def load() -> Config:
    """An absent file is an empty configuration. Raises CliError when the file is not ours to read."""
    file = path()
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return Config(
            api_url=str(data.get("api_url", "")),
            servers={url: _server(entry) for url, entry in data.get("servers", {}).items()},
        )
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CliError(
            f"{file} is damaged", next_step="move it away and log in again: tollway login --api-key KEY"
        ) from error


def _server(entry: dict[str, Any]) -> Server:
    accounts = {key: Account(**facts) for key, facts in entry["accounts"].items()}
    return Server(current=str(entry["current"]), accounts=accounts)


def save(config: Config) -> Path:
    """Replaces the file in one step (mode 0600, folder 0700), so that no reader ever sees half of it."""
    import tempfile

    file = path()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".config-")  # created with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump(asdict(config), out, indent=2)
                out.write("\n")
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror}") from error
    return file
