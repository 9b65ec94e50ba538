"""`python -m local.up` where it must not start: it says why, in words for a person, and leaves nothing running."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from local import ports
from local.state import State
from tests.infra.stack import Stack


def _up(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLWAY_", "STRIPE_"))}
    return subprocess.run(
        [sys.executable, "-m", "local.up"],
        env={**given, "TOLLWAY_STATE": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_second_start_on_one_state_folder_is_refused(tmp_path: Path) -> None:
    holder = State(tmp_path)
    holder.hold()
    second = _up(tmp_path)
    holder.release()
    assert second.returncode == 1
    assert f"tollway already runs on {tmp_path} (process {os.getpid()})" in second.stderr


def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    refused = _up(
        tmp_path,
        TOLLWAY_GATEWAY_PORT="http",
        TOLLWAY_NATS_PORT="15432",
        TOLLWAY_HOST="0.0.0.0",
        TOLLWAY_POSTGRES_URL="mysql://root:hunter2@db/x",
        CATALOG="nowhere.yaml",
        STRIPE_API_KEY="sk_live_123",
    )
    assert refused.returncode == 1
    for words in (
        "TOLLWAY_GATEWAY_PORT: expected a number from 1 to 65535, got 'http'",
        "15432 is also TOLLWAY_NATS_PORT",
        "TOLLWAY_HOST: local mode binds 127.0.0.1 only",
        "TOLLWAY_POSTGRES_URL: expected postgresql://host:port",
        "CATALOG: there is no file nowhere.yaml",
        "STRIPE_WEBHOOK_SECRET: is required beside STRIPE_API_KEY",
        "STRIPE_API_KEY: local mode takes test keys only",
    ):
        assert words in refused.stderr
    assert "hunter2" not in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_taken_port_stops_the_start_and_names_its_variable(tmp_path: Path) -> None:
    with socket.socket() as squatter:
        port = ports.reserve()
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        given = Stack(tmp_path, {"TOLLWAY_GATEWAY_PORT": str(port)})
        given.launch()
        assert given.supervisor.wait(timeout=30) == 1
    said = given.log.read_text()
    assert f"port {port} (gateway) is taken; set TOLLWAY_GATEWAY_PORT to another" in said
    assert not (tmp_path / "state" / "postgres").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_state_folder_of_somebody_else_is_refused_in_words(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused = _up(tmp_path / "state")
    tmp_path.chmod(0o700)
    assert refused.returncode == 1
    assert "TOLLWAY_STATE" in refused.stderr
    assert "Traceback" not in refused.stderr
