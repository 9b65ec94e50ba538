"""A service that lacks a setting, or has a wrong one, ends with 78 and a line that names the variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from pathlib import Path
from pydantic import Field
from services.kit.config import Settings, load

class Probe(Settings):
    probe_port: int = Field(ge=0, le=65535)
    api_key: str = Field(validation_alias="PROBE_API_KEY")
    nats_url: str = "nats://127.0.0.1"

settings = load(Probe)
print(settings.probe_port, settings.api_key, settings.nats_url, settings.rpc_token)
print(repr(settings), str(settings))
"""
AUTHENTICATION = "TOLLWAY_RPC_TOKEN (or TOLLWAY_TLS_CA with TOLLWAY_TLS_CERT and TOLLWAY_TLS_KEY)"
GOOD = {"TOLLWAY_LOCAL": "1", "TOLLWAY_PROBE_PORT": "7101", "PROBE_API_KEY": "key"}


def start(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**kept, **environment}, capture_output=True, text=True, check=False
    )


def refusal(environment: dict[str, str]) -> list[str]:
    ended = start(environment)
    assert ended.returncode == 78, ended.stderr
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert all(line.startswith("configuration: ") for line in lines), ended.stderr  # and so no traceback
    return [line.removeprefix("configuration: ") for line in lines]


def test_every_wrong_variable_is_named_at_once() -> None:
    assert refusal({"TOLLWAY_LOCAL": "1", "TOLLWAY_PROBE_PORT": "http", "TOLLWAY_LOG_LEVEL": "loud"}) == [
        "TOLLWAY_LOG_LEVEL: expected debug, info, warning or error",
        "TOLLWAY_PROBE_PORT: Input should be a valid integer, unable to parse string as an integer",
        "PROBE_API_KEY: is required",
    ]


def test_an_empty_variable_counts_as_missing() -> None:
    assert refusal(GOOD | {"PROBE_API_KEY": ""}) == ["PROBE_API_KEY: is required"]


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    (tmp_path / "token").write_text("t0ken\n")
    environment = GOOD | {
        "PROBE_API_KEY_FILE": str(tmp_path / "key"),
        "TOLLWAY_RPC_TOKEN_FILE": str(tmp_path / "token"),
    }
    del environment["PROBE_API_KEY"]
    ended = start(environment)
    assert ended.stdout.splitlines()[0] == "7101 from-a-file nats://127.0.0.1 t0ken"


def test_the_repr_of_settings_shows_no_value() -> None:
    ended = start(GOOD | {"TOLLWAY_RPC_TOKEN": "s3cret"})
    assert "s3cret" not in ended.stdout.splitlines()[1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"PROBE_API_KEY_FILE": "/dev/null"}, "PROBE_API_KEY and PROBE_API_KEY_FILE are both set: keep one"),
        (
            {"TOLLWAY_RPC_TOKEN_FILE": "/nowhere/token"},
            "TOLLWAY_RPC_TOKEN_FILE: cannot read the file it names: No such file or directory",
        ),
        (
            {"TOLLWAY_RPC_TOKEN_FILE": sys.executable},
            "TOLLWAY_RPC_TOKEN_FILE: cannot read the file it names: it is not text",
        ),
        (
            {"TOLLWAY_LOCAL": "", "TOLLWAY_RPC_TOKEN": "t", "TOLLWAY_CLOCK_FILE": "/tmp/clock"},
            "TOLLWAY_CLOCK_FILE moves time and is refused outside local mode (TOLLWAY_LOCAL=1)",
        ),
        ({"TOLLWAY_LOCAL": ""}, f"{AUTHENTICATION} is required outside local mode"),
        ({"TOLLWAY_HOST": "0.0.0.0"}, f"{AUTHENTICATION} is required to serve beyond loopback"),
        # Authorities without a certificate of our own would leave us in plaintext, and everybody let in.
        ({"TOLLWAY_LOCAL": "", "TOLLWAY_TLS_CA": "/ca"}, f"{AUTHENTICATION} is required outside local mode"),
        (
            {"TOLLWAY_TLS_CERT": "/cert"},
            "TOLLWAY_TLS_CERT and TOLLWAY_TLS_KEY belong together: one is missing",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, str], named: str) -> None:
    assert refusal(GOOD | changes) == [named]


def test_a_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    [line] = refusal(GOOD | {"TOLLWAY_PROBE_PORT": "sk_live_abcdefgh"})
    assert "sk_live" not in line
