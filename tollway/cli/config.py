"""The one file the CLI keeps: which server, who signed in there, and the accounts with their API keys. Readable by its
owner only."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tollway.cli.errors import CliError

DEFAULT_API_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Account:
    """An account as the server told it. `by_session`: commands act on it as the person who signed in, not by its key,
    which may be empty then."""

    id: str
    api_key: str = field(repr=False)
    slug: str = ""
    name: str = ""
    email: str = ""
    by_session: bool = False


@dataclass(frozen=True)
class Session:
    """A person who signed in through the browser. `expires_at` is RFC 3339."""

    token: str = field(repr=False)
    email: str = ""
    expires_at: str = ""


@dataclass
class Server:
    current: str = ""
    accounts: dict[str, Account] = field(default_factory=dict)
    session: Session | None = None

    def credential(self, account: Account) -> str:
        """What acts on the account; "" when nothing does any more."""
        if account.by_session:
            return self.session.token if self.session else ""
        return account.api_key

    def by_slug(self, slug: str) -> Account | None:
        return next((account for account in self.accounts.values() if account.slug == slug), None)


@dataclass
class Config:
    """`api_url` is the server used last; keys belong to the server that issued them and are sent to no other."""

    api_url: str = ""
    servers: dict[str, Server] = field(default_factory=dict)

    def account(self, api_url: str) -> Account | None:
        server = self.servers.get(api_url)
        return server.accounts.get(server.current) if server else None

    def remember(self, api_url: str, account: Account) -> None:
        """Makes it the current account there. Other accounts' keys stay, and so does its own if no other is given."""
        server = self.servers.setdefault(api_url, Server())
        known = server.accounts.get(account.id)
        if known is not None and not account.api_key:
            account = replace(account, api_key=known.api_key)
        server.accounts[account.id] = account
        server.current = account.id
        self.api_url = api_url

    def sign_in(self, api_url: str, session: Session, account: Account) -> None:
        """The person's session, and the account to begin with."""
        self.servers.setdefault(api_url, Server()).session = session
        self.remember(api_url, replace(account, by_session=True))

    def sign_out(self, api_url: str) -> Session | None:
        """Forgets the session there; accounts that have a key are acted on by it again, others are forgotten."""
        server = self.servers.get(api_url)
        if server is None or server.session is None:
            return None
        gone, server.session = server.session, None
        server.accounts = {
            key: replace(each, by_session=False) for key, each in server.accounts.items() if each.api_key
        }
        if server.current not in server.accounts:
            server.current = next(iter(server.accounts), "")
        return gone

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
        raise CliError(f"{file} is damaged", next_step="move it away and log in again: tollway login") from error


def _server(entry: dict[str, Any]) -> Server:
    accounts = {key: Account(**facts) for key, facts in entry["accounts"].items()}
    session = Session(**entry["session"]) if entry.get("session") else None
    return Server(current=str(entry["current"]), accounts=accounts, session=session)


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
