"""The file that holds keys."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tollway.cli import config
from tollway.cli.config import Account, Config
from tollway.cli.errors import CliError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "a" / "config.json"
    monkeypatch.setattr(config, "path", lambda: file)
    return file


def test_what_was_saved_is_loaded() -> None:
    saved = Config()
    saved.remember("http://one", Account("acct_1", "k1", "ada", "Ada", "ada@example.com"))
    saved.remember("http://two", Account("acct_2", "k2"))
    config.save(saved)
    assert config.load() == saved
    assert config.load().api_url == "http://two"


def test_nothing_saved_is_an_empty_configuration() -> None:
    assert config.load() == Config()


def test_the_file_is_its_owners_only_also_after_it_was_not(home: Path) -> None:
    config.save(Config())
    home.chmod(0o644)
    config.save(Config())
    assert stat.S_IMODE(home.stat().st_mode) == 0o600


def test_a_failed_save_leaves_the_old_file_and_nothing_beside_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.save(Config(api_url="http://old"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CliError, match="No space left"):
        config.save(Config(api_url="http://new"))
    assert config.load().api_url == "http://old"
    assert [file.name for file in home.parent.iterdir()] == ["config.json"]


def test_signing_up_again_keeps_the_earlier_key_and_logging_out_returns_to_it() -> None:
    held = Config()
    held.remember("http://one", Account("acct_1", "k1"))
    held.remember("http://one", Account("acct_2", "k2"))
    assert held.account("http://one") == Account("acct_2", "k2")
    assert held.forget("http://one") == Account("acct_2", "k2")
    assert held.account("http://one") == Account("acct_1", "k1")
    assert held.account("http://elsewhere") is None


def test_a_key_is_not_in_what_is_logged() -> None:
    assert "secret" not in repr(Account("acct_1", "secret"))
