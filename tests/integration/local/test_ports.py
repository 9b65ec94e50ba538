"""Ports for tests: nobody is given one twice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from local import ports

_PROGRAM = """
import sys
from local import ports
# Every port but one is taken as far as this process can see.
ports._LOWEST = ports._HIGHEST = int(sys.argv[1])
try:
    print(ports.reserve())
except RuntimeError:
    print("none")
"""


def _reserve_elsewhere(port: int) -> str:
    command = [sys.executable, "-c", _PROGRAM, str(port)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_reserved_port_is_given_to_no_other_process_while_we_live() -> None:
    port = ports.reserve()
    assert _reserve_elsewhere(port) == "none"


def test_a_port_that_somebody_listens_on_is_not_given() -> None:
    port = ports.reserve()
    free = next(other for other in range(port + 1, port + 100) if ports.is_free(other))
    with socket.socket() as listener:
        # As servers do: connections of earlier tests may still wait on this port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", free))
        listener.listen()
        assert not ports.is_free(free)
        assert _reserve_elsewhere(free) == "none"


def test_many_reservations_cost_one_descriptor() -> None:
    ports.reserve()
    before = len(os.listdir("/proc/self/fd"))
    assert len({ports.reserve() for _ in range(300)}) == 300
    assert len(os.listdir("/proc/self/fd")) == before
